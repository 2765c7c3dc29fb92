"""The steps of the line: one module a step of dag.py, and what they see."""

"""The steps of the line: one module for each step of dag.py, and their context."""

"""Evaluation: scores on held-out sets and mteb tasks, the comparison of stages, and the report."""

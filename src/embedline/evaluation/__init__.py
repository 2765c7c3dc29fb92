"""Scores: local held-out sets, mteb tasks, BM25; the comparison of stages and the report."""

"""Vectors of a corpus: exact search."""

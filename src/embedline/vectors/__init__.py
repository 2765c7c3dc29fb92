"""Vectors of a corpus: embedding to disk, exact search."""

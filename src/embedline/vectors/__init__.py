"""Vectors of a corpus: embedding to disk, exact search, scaling to length 1."""

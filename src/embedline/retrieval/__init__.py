"""Retrieval: BM25, fusion of scores, indexes of passages and their search."""

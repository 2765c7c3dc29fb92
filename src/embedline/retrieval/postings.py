"""Postings: for each term the documents that have it, with its weight in each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

_FILES = ("starts", "documents", "weights")


class Postings:
    """An inverted index in memory or memory-mapped: a query reads the lists of its own terms only.

    Args:
        starts: V + 1, where each term's list begins.
        documents: document of each entry, ascending within a list.
        weights: weight of each entry, positive.
        count: documents, N.
    """

    def __init__(self, starts: np.ndarray, documents: np.ndarray, weights: np.ndarray, count: int) -> None:
        self.starts, self.documents, self.weights, self.count = starts, documents, weights, count

    @classmethod
    def of(cls, weights_NV: Any) -> Postings:
        """Make the postings of a sparse matrix, documents × terms."""
        by_term = sp.csc_matrix(weights_NV)
        by_term.sum_duplicates()
        return cls(by_term.indptr.astype(np.int64), by_term.indices, by_term.data, by_term.shape[0])

    def matrix(self) -> Any:
        """Return the weights as a sparse matrix by document (SciPy CSR)."""
        shape = (self.count, len(self.starts) - 1)
        return sp.csc_matrix((self.weights, self.documents, self.starts), shape=shape).tocsr()

    def has(self, term: int, document: int) -> bool:
        """Return whether a document is in a term's list."""
        entries = self.documents[self.starts[term] : self.starts[term + 1]]
        place = int(np.searchsorted(entries, document))
        return place < len(entries) and int(entries[place]) == document

    def scores(self, query: Iterable[tuple[int, float]]) -> np.ndarray:
        """Add up the query's terms in every document (N, float32); 0 where no term occurs.

        Sums are in fp64, in the order of the terms, and so equal those of a sparse matrix product.

        Args:
            query: terms with their weights; terms outside the vocabulary add nothing.
        """
        scores_N = np.zeros(self.count)
        for term, weight in sorted(query):
            if term + 1 < len(self.starts):
                entries = slice(self.starts[term], self.starts[term + 1])
                scores_N[self.documents[entries]] += weight * self.weights[entries]
        return scores_N.astype(np.float32)  # trec_eval's, and mteb's, width

    def save(self, folder: Path) -> None:
        """Write the three arrays into `folder`, and the number of documents."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))
        np.save(folder / "count.npy", np.int64(self.count))

    @classmethod
    def load(cls, folder: Path) -> Postings:
        """Open what `save` wrote, memory-mapped."""
        starts, documents, weights = (
            np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in _FILES
        )
        return cls(starts, documents, weights, int(np.load(folder / "count.npy")))

"""Searches of a pool for a query's candidates, by their names in `mine.strategies`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Protocol

import numpy as np

from embedline.config.training import MiningStrategy
from embedline.mining.negatives import Candidates
from embedline.retrieval.bm25 import BM25
from embedline.vectors.search import exact_search


class Search(Protocol):
    """A function from N queries and their vectors (N × D) to the best `depth` candidates of each, in turn."""

    def __call__(
        self, queries: Sequence[str], queries_ND: np.ndarray, depth: int
    ) -> Iterator[Candidates]: ...


class Pool:
    """The distinct texts that may become negatives of some queries."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)

    @cached_property
    def _bm25(self) -> BM25:  # the same for all prompts
        return BM25(self.texts)

    def searches(
        self, strategies: Iterable[MiningStrategy], documents_MD: np.ndarray
    ) -> dict[MiningStrategy, Search]:
        """Return the search of each strategy; the scores are those of the model, with its vectors (M × D)."""
        searches: dict[MiningStrategy, Search] = {
            "model": partial(_by_vectors, documents_MD),
            "bm25": partial(self._by_words, documents_MD),
        }
        return {name: searches[name] for name in strategies}

    def _by_words(
        self, documents_MD: np.ndarray, queries: Sequence[str], queries_ND: np.ndarray, depth: int
    ) -> Iterator[Candidates]:
        indices_NK = self._bm25.search(queries, depth)[1]
        for query_D, indices_K in zip(queries_ND, indices_NK, strict=True):
            found = indices_K[indices_K >= 0]
            yield Candidates(documents_MD[found] @ query_D, found)


def _by_vectors(
    documents_MD: np.ndarray, queries: Sequence[str], queries_ND: np.ndarray, depth: int
) -> Iterator[Candidates]:
    return map(Candidates, *exact_search(queries_ND, documents_MD, depth))

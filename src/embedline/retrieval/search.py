"""Search of an index by one of a model's heads, by BM25, or by several of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from embedline.errors import InputError
from embedline.models.head_vectors import HeadVectors, Terms
from embedline.retrieval.blocks import TokenArray
from embedline.retrieval.fusion import BM25_LEG, DEPTH, Candidates, Fusion
from embedline.retrieval.index import Index
from embedline.retrieval.late_interaction import late_interaction
from embedline.retrieval.ranking import best
from embedline.vectors.unit import unit

Mode = Literal["dense", "lexical", "hybrid", "bm25"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Query(NamedTuple):
    """A query and its vectors; None for what a search does not read.

    Args:
        text: the words, which BM25 reads.
        dense: D values, length 1; cut to the width of the index.
        terms: of the lexical head.
        tokens: of the multi-vector head, T × K.
    """

    text: str
    dense: np.ndarray | None = None
    terms: Terms | None = None
    tokens: np.ndarray | None = None

    @classmethod
    def of(cls, text: str, heads: HeadVectors, row: int = 0) -> Query:
        """Take one text's vectors."""
        terms = None if heads.lexical is None else heads.lexical[row]
        tokens = None if heads.tokens is None else heads.tokens[row]
        return cls(text, heads.dense[row], terms, tokens)


class Ranking(NamedTuple):
    """The passages found, best first: scores and rows of the index."""

    scores: np.ndarray
    rows: np.ndarray

    def candidates(self, depth: int) -> Candidates:
        """Return the ranking as what a leg found for one query, filled up to `depth`."""
        missing = depth - len(self.rows)
        scores = np.pad(self.scores, (0, missing))
        return Candidates(scores[np.newaxis], np.pad(self.rows, (0, missing), constant_values=-1)[np.newaxis])


def search_index(
    index: Index, query: Query, k: int, mode: Mode = "dense", fusion: Fusion | None = None
) -> Ranking:
    """Find the best `k` passages, ties by the lower row.

    The multi-vector head, where the index has its token vectors, orders the best 100 of `dense` and
    `lexical`; in `hybrid` it is a leg of its own, over what the other legs found.

    Args:
        fusion: of the legs in `hybrid`: the model's; None: the default weights.

    Raises:
        InputError: the index lacks the head.
    """
    depth = max(k, DEPTH)
    if mode == "hybrid":
        return _hybrid(index, query, k, depth, fusion or Fusion())
    found = _SEARCHES[mode](index, query, depth)
    if mode != BM25_LEG and index.tokens is not None and query.tokens is not None:
        found = _by_tokens(index.tokens, query.tokens, found.rows)
    return Ranking(found.scores[:k], found.rows[:k])


def _hybrid(index: Index, query: Query, k: int, depth: int, fusion: Fusion) -> Ranking:
    names = [name for name in _SEARCHES if name == BM25_LEG or name in index.heads]
    legs = {name: _SEARCHES[name](index, query, depth) for name in names}
    if index.tokens is not None and query.tokens is not None:
        rows = np.unique(np.concatenate([leg.rows for leg in legs.values()]))
        scores, rows = _by_tokens(index.tokens, query.tokens, rows)
        legs["multi_vector"] = Ranking(scores[:depth], rows[:depth])
    best_by_words = legs[BM25_LEG].rows[:1] if len(legs[BM25_LEG].rows) else np.array([-1])
    features = index.query_features([query.text], best_by_words)
    fused = fusion.rank({name: leg.candidates(depth) for name, leg in legs.items()}, features, k)
    found = fused.indices[0] >= 0
    return Ranking(fused.scores[0][found], fused.indices[0][found])


def _by_tokens(passages: TokenArray, query_TK: np.ndarray, rows: np.ndarray) -> Ranking:
    """Order passages by late interaction, ties by the lower row."""
    scores = late_interaction(query_TK, passages, rows)
    order = np.lexsort((rows, -scores))
    return Ranking(scores[order], rows[order])


def _dense(index: Index, query: Query, depth: int) -> Ranking:
    if index.dense is None or query.dense is None:
        raise InputError("has no dense vectors.", where="the index")
    vector = query.dense
    if len(vector) != index.dense.dim:
        vector = unit(vector[np.newaxis], index.dense.dim)[0]
    return Ranking(*index.dense.search(vector, depth))


def _lexical(index: Index, query: Query, depth: int) -> Ranking:
    if index.lexical is None or query.terms is None:
        raise InputError(
            "the model has no lexical head.",
            where="--mode lexical",
            fix="Use --mode bm25 for words, or train the head: model.heads.",
        )
    return _positive(index.lexical.scores(query.terms.items()), depth)


def _bm25(index: Index, query: Query, depth: int) -> Ranking:
    return _positive(index.bm25.scores(query.text), depth)


def _positive(scores_N: np.ndarray, depth: int) -> Ranking:
    """Rank scores that are 0 where a passage was not found."""
    found = np.flatnonzero(scores_N > 0)
    rows = found[best(scores_N[found], depth)]
    return Ranking(scores_N[rows], rows)


_SEARCHES: Mapping[str, Callable[[Index, Query, int], Ranking]] = {
    "dense": _dense,
    "lexical": _lexical,
    BM25_LEG: _bm25,
}

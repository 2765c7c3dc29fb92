"""What each leg of a search finds in one corpus: a model's heads, and BM25."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.heads import HYBRID, blocks, rank_by_head
from embedline.retrieval.bm25 import BM25
from embedline.retrieval.fusion import BM25_LEG, Candidates
from embedline.retrieval.query_features import QueryFeatures
from embedline.vectors.search import exact_search


class SearchTexts(NamedTuple):
    """The texts of a search, and how a model reads them.

    Args:
        query_length: tokens at which a query is cut.
        depth: documents that each leg gives.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    query_prompt: str
    document_prompt: str
    query_length: int
    depth: int


def search_by_head(model: EvaluatedModel, texts: SearchTexts) -> dict[str, Candidates]:
    """Search with the heads beside dense, and with their weighted sum (`hybrid`); empty for dense alone."""
    if len(model.heads) == 1:
        return {}
    queries = model.head_vectors(texts.queries, texts.query_prompt, texts.query_length)
    counts = model.token_counts(texts.documents, texts.document_prompt, model.document_length)
    documents = (
        model.head_vectors(texts.documents[block], texts.document_prompt, model.document_length)
        for block in blocks(counts)
    )
    return rank_by_head(queries, documents, model.hybrid, texts.depth)


def search_by_leg(
    model: EvaluatedModel, texts: SearchTexts, by_head: dict[str, Candidates]
) -> tuple[dict[str, Candidates], np.ndarray]:
    """Return what every leg finds, and the queries' features for the weights of a fusion (Q × F).

    Args:
        by_head: from `search_by_head`.
    """
    queries = model.vectors(texts.queries, texts.query_prompt, texts.query_length)
    documents = model.vectors(texts.documents, texts.document_prompt, model.document_length)
    bm25 = BM25(texts.documents)
    words = Candidates(*bm25.search(texts.queries, texts.depth))
    legs = {"dense": Candidates(*exact_search(queries, documents, texts.depth))}
    legs |= {head: found for head, found in by_head.items() if head != HYBRID} | {BM25_LEG: words}
    return legs, QueryFeatures(bm25)(texts.queries, words.indices[:, 0])

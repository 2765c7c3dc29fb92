"""Retrieval by each of a model's heads: exact, over the whole corpus, a block of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from embedline.models.device import best_device
from embedline.models.head_scores import hybrid_scores, lexical_scores, multi_vector_scores
from embedline.models.head_vectors import HeadVectors, Terms
from embedline.retrieval.fusion import Candidates

HYBRID = "hybrid"
TOKENS = 65_536  # of documents whose token vectors exist at a time: 268 MB of them at 1,024 values
_QUERIES = 256  # scored at a time


def blocks(lengths: Sequence[int], most: int = TOKENS) -> Iterator[slice]:
    """Split documents into blocks of neighbours with at most `most` tokens; a longer document is alone."""
    start, held = 0, 0
    for i, length in enumerate(lengths):
        if held and held + length > most:
            yield slice(start, i)
            start, held = i, 0
        held += length
    if start < len(lengths):
        yield slice(start, len(lengths))


def rank_by_head(
    queries: HeadVectors, documents: Iterable[HeadVectors], weights: Mapping[str, float], k: int
) -> dict[str, Candidates]:
    """Rank the best `k` documents of each query by each head, and by the weighted sum of all (`hybrid`).

    Equal scores are ordered by the lower index. Runs on a GPU where there is one.

    Args:
        documents: the corpus in blocks; only one is held at a time.
        weights: of the heads in the hybrid score.

    Returns:
        Head → documents (Q × k), for the heads other than dense, and for hybrid.
    """
    device = best_device()
    parts = [_tensors(queries, slice(at, at + _QUERIES)) for at in range(0, len(queries.dense), _QUERIES)]
    best: dict[str, tuple[Tensor, Tensor]] = {}
    seen = 0
    for block in documents:
        held = _moved(_tensors(block, slice(None)), device)
        scored = [_scores(_moved(part, device), held, weights) for part in parts]
        for head in scored[0]:
            values = torch.cat([scores[head] for scores in scored]).float().cpu()
            places = torch.arange(seen, seen + values.shape[1]).expand(values.shape)
            if head in best:  # earlier documents come first: a stable sort keeps the lower index first
                values = torch.cat([best[head][0], values], 1)
                places = torch.cat([best[head][1], places], 1)
            order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
            best[head] = values.gather(1, order), places.gather(1, order)
        seen += len(block.dense)
    return {head: Candidates(values.numpy(), places.numpy()) for head, (values, places) in best.items()}


def _scores(queries: _Parts, documents: _Parts, weights: Mapping[str, float]) -> dict[str, Tensor]:
    scores = {"dense": queries["dense"] @ documents["dense"].T}
    if "terms" in queries:
        scores["lexical"] = lexical_scores(
            queries["terms"], queries["weights"], documents["terms"], documents["weights"]
        )
    if "tokens" in queries:
        scores["multi_vector"] = multi_vector_scores(queries["tokens"], documents["tokens"])
    scores[HYBRID] = hybrid_scores(scores, weights)
    del scores["dense"]  # ranked elsewhere, at every dim
    return scores


_Parts = dict[str, Tensor]


def _tensors(vectors: HeadVectors, rows: slice) -> _Parts:
    parts = {"dense": torch.from_numpy(vectors.dense[rows])}
    if vectors.lexical is not None:
        parts["terms"], parts["weights"] = _padded_terms(vectors.lexical[rows])
    if vectors.tokens is not None:
        parts["tokens"] = _padded_tokens(vectors.tokens[rows])
    return parts


def _moved(parts: _Parts, device: torch.device) -> _Parts:
    return {name: part.to(device) for name, part in parts.items()}


def _padded_terms(texts: Sequence[Terms]) -> tuple[Tensor, Tensor]:
    width = max(map(len, texts), default=0)
    ids = torch.zeros(len(texts), width, dtype=torch.int64)
    weights = torch.zeros(len(texts), width)
    for i, terms in enumerate(texts):
        ids[i, : len(terms)] = torch.tensor(list(terms), dtype=torch.int64)
        weights[i, : len(terms)] = torch.tensor(list(terms.values()))
    return ids, weights


def _padded_tokens(texts: Sequence[np.ndarray]) -> Tensor:
    longest = max(1, *(len(tokens) for tokens in texts)) if texts else 1
    width = max((tokens.shape[1] for tokens in texts), default=0)
    padded = torch.zeros(len(texts), longest, width)
    for i, tokens in enumerate(texts):
        padded[i, : len(tokens)] = torch.from_numpy(tokens)
    return padded

"""The consistency filter of Nomic Embed (Nussbaum et al. 2024, section 3.2): keep what a teacher can find."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Encode = Callable[[list[str]], npt.NDArray[np.float32]]


def consistent(
    queries: Sequence[str],
    positives: Sequence[str],
    teacher_encode: Encode,
    top_k: int,
    pool: int,
    *,
    seed: int = 0,
    chunk: int = 1024,
) -> npt.NDArray[np.bool_]:
    """Which pairs stand: fewer than `top_k` other positives of the pool are more like the query than its own.

    Args:
        queries, positives: a pair at each index.
        teacher_encode: texts to vectors (N × D); lengths do not matter, they are normalised here.
        pool: pairs are dealt at random into pools of at most so many, and compete within their pool.
        chunk: queries scored at a time: what bounds the memory (chunk × pool scores).

    Returns:
        A mask (N,). Equal positive texts count as the query's own; a tie counts for the pair.
    """
    if len(queries) != len(positives):
        raise ValueError(f"{len(queries)} queries and {len(positives)} positives are no pairs")
    keep = np.zeros(len(queries), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(queries))
    pools = np.array_split(order, max(1, -(-len(order) // pool)))
    for members in pools:
        texts = sorted({positives[i] for i in members})
        row_of = {text: row for row, text in enumerate(texts)}
        own = np.array([row_of[positives[i]] for i in members], dtype=np.int64)
        documents = _unit(teacher_encode(texts))
        asked = _unit(teacher_encode([queries[i] for i in members]))
        for start in range(0, len(members), chunk):
            rows = slice(start, start + chunk)
            scores = asked[rows] @ documents.T
            own_score = np.take_along_axis(scores, own[rows, None], axis=1)
            keep[members[rows]] = (scores > own_score).sum(axis=1) < top_k
    return keep


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    matrix = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True).astype(np.float32)
    unit: npt.NDArray[np.float32] = matrix / np.maximum(norms, np.float32(1e-12))
    return unit

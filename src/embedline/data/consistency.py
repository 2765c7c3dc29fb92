"""The consistency filter of Nomic Embed (Nussbaum et al. 2024, section 3.2): keep what a teacher can find."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedline.models.prompts import Side

Kind = tuple[str, str]  # a row's source and task type, which choose its prompts
Encode = Callable[[list[str], str, str, Side], npt.NDArray[np.float32]]  # texts, source, task type, side


def consistent(
    queries: Sequence[str],
    positives: Sequence[str],
    kinds: Sequence[Kind],
    teacher_encode: Encode,
    top_k: int,
    pool: int,
    *,
    seed: int = 0,
    chunk: int = 1024,
) -> npt.NDArray[np.bool_]:
    """Which pairs stand: fewer than `top_k` other positives of the pool are more like the query than its own.

    Args:
        queries, positives, kinds: a pair at each index.
        teacher_encode: texts of one kind and side to vectors (N × D), normalised here.
        pool: pairs are dealt at random into pools of at most so many, and compete within their pool.
        chunk: queries scored at a time: what bounds the memory (chunk × pool scores).

    Returns:
        A mask (N,). A text is no rival of its equals, whatever their kinds; a tie counts for the pair.
    """
    if not len(queries) == len(positives) == len(kinds):
        raise ValueError(f"{len(queries)} queries and {len(positives)} positives are no pairs")
    keep = np.zeros(len(queries), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(queries))
    pools = np.array_split(order, max(1, -(-len(order) // pool)))
    for members in filter(len, pools):
        texts = sorted({(positives[i], kinds[i]) for i in members})
        row_of = {text: row for row, text in enumerate(texts)}
        own = np.array([row_of[positives[i], kinds[i]] for i in members], dtype=np.int64)
        number = {text: i for i, text in enumerate(dict.fromkeys(text for text, _ in texts))}
        same = np.array([number[text] for text, _ in texts])  # equal for equal texts
        documents = _encoded(texts, "document", teacher_encode)
        asked = _encoded([(queries[i], kinds[i]) for i in members], "query", teacher_encode)
        for start in range(0, len(members), chunk):
            rows = slice(start, start + chunk)
            scores = asked[rows] @ documents.T
            own_score = np.take_along_axis(scores, own[rows, None], axis=1)
            rivals = same != same[own[rows, None]]
            keep[members[rows]] = ((scores > own_score) & rivals).sum(axis=1) < top_k
    return keep


def _encoded(texts: Sequence[tuple[str, Kind]], side: Side, encode: Encode) -> npt.NDArray[np.float32]:
    """Unit vectors (N × D), each text asked for as its kind is."""
    vectors: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
    for kind in sorted({kind for _, kind in texts}):
        places = [i for i, (_, of) in enumerate(texts) if of == kind]
        for i, vector in zip(places, encode([texts[i][0] for i in places], *kind, side), strict=True):
            vectors[i] = vector
    return _unit(np.stack(vectors))


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    matrix = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True).astype(np.float32)
    unit: npt.NDArray[np.float32] = matrix / np.maximum(norms, np.float32(1e-12))
    return unit

"""The consistency filter of Nomic Embed (Nussbaum et al. 2024, section 3.2): pairs that a teacher ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from embedline.errors import InputError
from embedline.models.prompts import Side
from embedline.vectors.unit import unit

SourceTask = tuple[str, str]  # a row's source and task type, which choose its prompts
_EQUAL = 1e-6  # largest difference, in any component, of vectors that are equal
_MANY = 10  # texts; a few may differ only in what a teacher ignores, such as case
Encode = Callable[[list[str], str, str, Side], npt.NDArray[np.float32]]  # texts, source, task type, side


def consistent(
    queries: Sequence[str],
    positives: Sequence[str],
    source_tasks: Sequence[SourceTask],
    teacher_encode: Encode,
    top_k: int,
    pool: int,
    *,
    seed: int = 0,
    chunk: int = 1024,
) -> npt.NDArray[np.bool_]:
    """Mark the pairs whose positive is among the teacher's `top_k` positives of the pool for the query.

    Args:
        queries, positives, source_tasks: one pair at each index.
        teacher_encode: texts of one source, task type and side to vectors (N × D), normalised here.
        pool: pairs are assigned at random to pools of at most this many, and compete within their pool.
        chunk: queries scored at a time; bounds the memory (chunk × pool scores).

    Returns:
        A mask (N,). Equal texts do not compete, whatever their source and task, nor does the query itself
        where it is a positive of another pair; a tie counts for the pair.

    Raises:
        InputError: the teacher gives the same vector to all positives of a pool, so that none is ranked.
    """
    if not len(queries) == len(positives) == len(source_tasks):
        raise ValueError(f"{len(queries)} queries and {len(positives)} positives are no pairs")
    keep = np.zeros(len(queries), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(queries))
    pools = np.array_split(order, max(1, -(-len(order) // pool)))
    for members in filter(len, pools):
        texts = sorted({(positives[i], source_tasks[i]) for i in members})
        row_of = {text: row for row, text in enumerate(texts)}
        own = np.array([row_of[positives[i], source_tasks[i]] for i in members], dtype=np.int64)
        number = {text: i for i, text in enumerate(dict.fromkeys(text for text, _ in texts))}
        text_number = np.array([number[text] for text, _ in texts])  # equal for equal texts
        documents_MD = _encode_all(texts, "document", teacher_encode)
        _require_different(documents_MD, number)
        query_number = np.array([number.get(queries[i], -1) for i in members])
        queries_ND = _encode_all([(queries[i], source_tasks[i]) for i in members], "query", teacher_encode)
        for start in range(0, len(members), chunk):
            rows = slice(start, start + chunk)
            scores_NM = queries_ND[rows] @ documents_MD.T
            own_score = np.take_along_axis(scores_NM, own[rows, None], axis=1)
            rivals_NM = text_number != text_number[own[rows, None]]
            rivals_NM &= text_number != query_number[rows, None]
            keep[members[rows]] = ((scores_NM > own_score) & rivals_NM).sum(axis=1) < top_k
    return keep


def _require_different(vectors_MD: npt.NDArray[np.float32], texts: Collection[str]) -> None:
    """Refuse equal vectors of different texts: every pair would be kept as a tie."""
    if len(texts) >= _MANY and not (np.ptp(vectors_MD, axis=0) > _EQUAL).any():
        raise InputError(
            f"it gives the same vector to {len(texts):,} different positives, so that none is ranked.",
            where="teacher.model",
            fix="Check the teacher's tokenizer files, pooling and prompts; teacher.filter: false omits it.",
        )


def _encode_all(
    texts: Sequence[tuple[str, SourceTask]], side: Side, encode: Encode
) -> npt.NDArray[np.float32]:
    """Return unit vectors (N × D); each text is encoded with the prompt of its source and task type."""
    vectors: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
    for source_task in sorted({source_task for _, source_task in texts}):
        indices = [i for i, (_, of_text) in enumerate(texts) if of_text == source_task]
        encoded = encode([texts[i][0] for i in indices], *source_task, side)
        for i, vector in zip(indices, encoded, strict=True):
            vectors[i] = vector
    return unit(np.asarray(np.stack(vectors), dtype=np.float32))

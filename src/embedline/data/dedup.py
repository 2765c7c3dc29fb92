"""Near duplicates by MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive
Datasets, chapter 3), hashed and bucketed by Daft."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedline.data.engine import daft

NGRAM_WORDS = 5
MIN_RECALL = 0.99
MAX_PAIRS = 1_000_000  # near pairs in memory before they are contracted
_SEED = 1

# N × sides × permutations: a passage has one side, a record has two, its query and its positives
Signatures = npt.NDArray[np.uint32]
Pairs = npt.NDArray[np.int64]  # E × 2: indices of two rows that are near duplicates


def signatures(texts: Sequence[str], permutations: int) -> Signatures:
    """Compute MinHash signatures (N × 1 × permutations) over the word 5-grams of texts in comparison form.

    A text of fewer than five words is one n-gram: it is a near duplicate only of its equal.
    """
    if not texts:
        return np.empty((0, 1, permutations), dtype=np.uint32)
    engine = daft()
    frame = engine.from_arrow(pa.table({"text": pa.array(texts, pa.large_string())}))
    hashed = engine.col("text").minhash(
        num_hashes=permutations, ngram_size=NGRAM_WORDS, seed=_SEED, hash_function="xxhash64"
    )
    column = frame.select(hashed.alias("signature")).to_arrow()["signature"].combine_chunks()
    return np.asarray(column.flatten()).astype(np.uint32).reshape(len(texts), 1, permutations)


def bands(permutations: int, threshold: float) -> tuple[int, int]:
    """Choose bands and rows a band: the most selective split that still finds pairs at the threshold.

    Two texts of similarity s share a band with probability 1 − (1 − s^rows)^bands. The result is the largest
    `rows` for which that is at least `MIN_RECALL` at s = threshold (one row a band when there is none).
    """
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if 1 - (1 - threshold**rows) ** count >= MIN_RECALL:
            return count, rows
    return permutations, 1


def representatives(found: Signatures, threshold: float) -> npt.NDArray[np.int64]:
    """Return for each row the first row of its group of near duplicates; itself where it has none.

    Candidates share a band; they are near when the share of equal hashes (the estimate of the Jaccard
    similarity), as the geometric mean over the sides, reaches `threshold`. Sides that have nothing in common
    make it zero, so one passage with two questions is two records. Groups are the connected components: they
    do not depend on the order of rows, their representatives do.
    """
    if len(found) == 0:
        return np.empty(0, dtype=np.int64)
    # Equal signatures first, so that a text repeated ten thousand times is one member of its bucket.
    _, first, inverse = np.unique(_as_bytes(found), return_index=True, return_inverse=True)
    distinct = found[first]
    near = (
        pairs
        for bucket in _buckets(distinct, threshold)
        for pairs in _near_pairs(distinct, bucket, threshold)
    )
    group = _connected(len(distinct), near)
    first_of_group = np.full(len(distinct), len(found), dtype=np.int64)
    np.minimum.at(first_of_group, group, first)
    result: npt.NDArray[np.int64] = first_of_group[group[inverse.reshape(-1)]]
    return result


def _connected(count: int, pairs: Iterable[Pairs]) -> npt.NDArray[np.int32]:
    """Return the connected component of each of `count` rows (a number each), joined by `pairs`.

    Pairs are contracted whenever `MAX_PAIRS` have come: thousands of rows that are all near each other have
    millions of pairs, which do not have to be in memory together.
    """
    group = np.arange(count, dtype=np.int32)
    waiting: list[Pairs] = []
    size = 0
    for some in pairs:
        waiting.append(some)
        size += len(some)
        if size >= max(MAX_PAIRS, count):
            group = _joined(group, waiting)
            waiting, size = [], 0
    return _joined(group, waiting) if waiting else group


def _joined(group: npt.NDArray[np.int32], waiting: Sequence[Pairs]) -> npt.NDArray[np.int32]:
    edges = group[np.concatenate(waiting)]
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(len(group),) * 2)
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels[group]


def _as_bytes(found: Signatures) -> npt.NDArray[np.void]:
    rows = np.ascontiguousarray(found).reshape(len(found), -1)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)


def _buckets(found: Signatures, threshold: float) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows that agree on a whole band, two or more of them, band by band."""
    engine = daft()
    width = found.shape[1] * found.shape[2]
    count, rows = bands(width, threshold)
    # hashes of the sides alternate, so that a band is shared only by rows that agree on all sides
    values = pa.array(found.transpose(0, 2, 1).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(values, width)
    frame = engine.from_arrow(pa.table({"row": pa.array(np.arange(len(found))), "signature": column}))
    slice_of, hash_of, col = engine.functions.slice, engine.functions.hash, engine.col
    for band in range(count):
        key = hash_of(slice_of(col("signature"), band * rows, (band + 1) * rows))
        grouped = (
            frame.select(col("row"), key.alias("key"))
            .groupby("key")
            .agg(col("row").list_agg().alias("members"), col("row").count().alias("size"))
            .where(col("size") > 1)
            .select("members")
            .to_arrow()
        )
        for members in grouped["members"].to_pylist():
            yield np.array(sorted(members))


def _near_pairs(found: Signatures, bucket: npt.NDArray[np.int64], threshold: float) -> Iterator[Pairs]:
    """Yield the near pairs of a bucket, those of one row with later rows at a time."""
    needed = threshold ** found.shape[1] - 1e-9
    rows = found[bucket]
    for i in range(len(bucket) - 1):
        equal = (rows[i + 1 :] == rows[i]).mean(axis=2).prod(axis=1)
        others = bucket[i + 1 + np.flatnonzero(equal >= needed)]
        if len(others):
            yield np.stack([np.full_like(others, bucket[i]), others], axis=1)

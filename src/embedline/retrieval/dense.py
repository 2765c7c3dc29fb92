"""Exact search over dense vectors that are kept in fp32, fp16 or int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from embedline.retrieval.ranking import best

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_VECTORS, _CODES, _SCALE = "dense.npy", "dense_int8.npy", "dense_int8_scale.npy"
_BLOCK_VALUES = 2**19  # converted to fp32 at a time: they stay in a core's cache
_RESCORED = 4  # times k, and at least 100: so many of the best by int8 are scored again


class DenseVectors:
    """Unit vectors of N passages, searched by inner product.

    fp16 halves the memory, int8 quarters it. int8 has one symmetric scale a dimension; the fp32 vectors stay
    on the disk, and the best few by int8 are scored again with theirs.

    Args:
        vectors: N × D, fp32 or fp16.
        codes: N × D, int8; None for the other precisions.
        scale_D: value of one step of each dimension's codes.
    """

    def __init__(
        self, vectors: np.ndarray, codes: np.ndarray | None = None, scale_D: np.ndarray | None = None
    ) -> None:
        self.vectors, self.codes, self.scale_D = vectors, codes, scale_D

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def search(self, query_D: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and indices of the best `k` passages, best first, ties by the lower index."""
        scores_N = self.scores(query_D)
        if self.codes is None:
            chosen = best(scores_N, k)
            return scores_N[chosen], chosen
        rows = np.sort(best(scores_N, max(_RESCORED * k, 100)))
        scores = self.exact(query_D, rows)
        order = best(scores, k)
        return scores[order], rows[order]

    def scores(self, query_D: np.ndarray) -> np.ndarray:
        """Return the score of every passage (N, float32), approximate in int8."""
        if self.codes is not None and self.scale_D is not None:
            return _products(self.codes, query_D * self.scale_D)
        if self.vectors.dtype == np.float32:
            scores_N: np.ndarray = self.vectors @ query_D.astype(np.float32)
            return scores_N
        return _products(self.vectors, query_D)

    def exact(self, query_D: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the scores of the passages in `rows`, from their fp32 (or fp16) vectors."""
        scores: np.ndarray = self.vectors[rows].astype(np.float32) @ query_D.astype(np.float32)
        return scores

    @classmethod
    def open(cls, folder: Path) -> DenseVectors:
        """Open what `write_dense` wrote, memory-mapped."""
        arrays = (_mapped(folder / name) for name in (_VECTORS, _CODES, _SCALE) if (folder / name).is_file())
        return cls(*arrays)


def create_vectors(folder: Path, shape: tuple[int, int], precision: Precision) -> np.memmap[Any, Any]:
    """Create the file of the vectors, to be filled; then `write_codes`."""
    dtype = np.float16 if precision == "fp16" else np.float32
    return np.lib.format.open_memmap(folder / _VECTORS, mode="w+", dtype=dtype, shape=shape)


def write_codes(folder: Path, vectors: np.ndarray) -> None:
    """Write the int8 codes of vectors, and their scales."""
    scale_D = np.maximum(np.abs(vectors).max(axis=0, initial=0.0), 1e-12).astype(np.float32) / 127
    np.save(folder / _SCALE, scale_D)
    codes = np.lib.format.open_memmap(folder / _CODES, mode="w+", dtype=np.int8, shape=vectors.shape)
    for start in range(0, len(vectors), 8192):
        codes[start : start + 8192] = np.rint(vectors[start : start + 8192] / scale_D)
    codes.flush()


def _products(rows_ND: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """Multiply rows of fp16 or int8 by a query in fp32, a block at a time: NumPy converts far slower."""
    import torch

    query = torch.from_numpy(query_D.astype(np.float32))
    rows = torch.from_numpy(rows_ND)
    scores = torch.empty(len(rows))
    step = max(1, _BLOCK_VALUES // max(1, rows_ND.shape[1]))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        torch.mv(rows[block].float(), query, out=scores[block])
    products: np.ndarray = scores.numpy()
    return products


def _mapped(path: Path) -> np.ndarray:
    """Map a file; copy on write, because torch warns of arrays that cannot be written."""
    array: np.ndarray = np.load(path, mmap_mode="c").view(np.ndarray)
    return array

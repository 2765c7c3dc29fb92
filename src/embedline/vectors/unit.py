"""Vectors of length 1: scaled rows, cut to fewer dimensions first where a Matryoshka model is used so."""

from __future__ import annotations

import numpy as np


def unit(vectors_ND: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Scale each row to length 1, after cutting it to its first `dim` components (Kusupati et al. 2022).

    A zero row stays zero.

    >>> unit(np.array([[3.0, 4.0, 9.0]]), dim=2)
    array([[0.6, 0.8]])
    """
    cut = vectors_ND[:, :dim]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    scaled: np.ndarray = cut / np.maximum(lengths, 1e-12)
    return scaled

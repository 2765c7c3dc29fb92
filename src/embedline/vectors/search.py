"""Exact nearest neighbours by inner product, in blocks: no index, bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Matrix = np.ndarray | Tensor


def exact_search(
    queries: Matrix, documents: Matrix, k: int, *, chunk: int = 8192, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` documents with the largest inner product for every query.

    Equal scores are ordered by the lower index, so a result does not depend on `chunk`. Memory beyond the
    inputs is a few blocks of 1024 × `chunk` scores.

    Args:
        queries, documents: Q × D and N × D; only blocks of them are moved to `device`.
        k: at most N are returned.

    Returns:
        Scores (Q × k, float32, falling) and indices into `documents` (Q × k, int64).
    """
    queries_QD, documents_ND = _tensor(queries), _tensor(documents)
    count, k = len(queries_QD), min(k, len(documents_ND))
    scores, indices = np.zeros((count, k), np.float32), np.zeros((count, k), np.int64)
    if not count or not k:
        return scores, indices
    for start in range(0, count, 1024):
        rows = slice(start, start + 1024)
        block_QD = queries_QD[rows].to(device, torch.float32)
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, len(documents_ND), chunk):
            part_ND = documents_ND[first : first + chunk].to(device, torch.float32)
            values, places = _top(block_QD @ part_ND.T, k)
            places = places + first
            if best is not None:  # earlier blocks stand first: a stable sort keeps the lower index first
                values, places = torch.cat([best[0], values], 1), torch.cat([best[1], places], 1)
                order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
                values, places = values.gather(1, order), places.gather(1, order)
            best = values, places
        assert best is not None
        scores[rows], indices[rows] = best[0].cpu().numpy(), best[1].cpu().numpy()
    return scores, indices


def _top(scores_QN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best `k` columns of each row, ties by the lower column (`topk` picks among ties as it likes)."""
    k = min(k, scores_QN.shape[1])
    values, places = scores_QN.topk(k, dim=1, sorted=False)
    last = values.min(1, keepdim=True).values
    crowded = (scores_QN >= last).sum(1) > k  # more columns tie for the last places than there are places
    for row in crowded.nonzero().flatten().tolist():
        places[row] = scores_QN[row].argsort(descending=True, stable=True)[:k]
    places = places.sort(1).values
    values = scores_QN.gather(1, places)
    order = values.argsort(dim=1, descending=True, stable=True)
    return values.gather(1, order), places.gather(1, order)


def _tensor(values: Matrix) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))

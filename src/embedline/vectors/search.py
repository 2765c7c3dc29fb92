"""Exact nearest neighbours by inner product, in blocks: no index, bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Matrix = np.ndarray | Tensor


def exact_search(
    queries: Matrix, documents: Matrix, k: int, *, chunk: int = 8192, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `k` documents with the largest inner product for every query.

    Equal scores are ordered by the lower index, so a result does not depend on `chunk`. Memory beyond the
    inputs is a few blocks of 1024 × `chunk` scores.

    Args:
        queries, documents: Q × D and N × D; moved to `device` in blocks.
        k: documents a query; at most N are returned.

    Returns:
        Scores (Q × k, float32, descending) and indices into `documents` (Q × k, int64).

    >>> documents = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    >>> exact_search(documents[:1], documents, 2)[1]
    array([[0, 2]])
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
            values, columns = _top(block_QD @ part_ND.T, k)
            columns = columns + first
            if best is not None:  # earlier blocks come first: a stable sort keeps the lower index first
                values, columns = torch.cat([best[0], values], 1), torch.cat([best[1], columns], 1)
                order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
                values, columns = values.gather(1, order), columns.gather(1, order)
            best = values, columns
        assert best is not None
        scores[rows], indices[rows] = best[0].cpu().numpy(), best[1].cpu().numpy()
    return scores, indices


def _top(scores_QN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the best `k` columns of each row, ties by the lower column (`topk` leaves their order open)."""
    k = min(k, scores_QN.shape[1])
    values, columns = scores_QN.topk(k, dim=1, sorted=False)
    last = values.min(1, keepdim=True).values
    crowded = (scores_QN >= last).sum(1) > k  # more columns tie for the last ranks than there are ranks
    for row in crowded.nonzero().flatten().tolist():
        columns[row] = scores_QN[row].argsort(descending=True, stable=True)[:k]
    columns = columns.sort(1).values
    values = scores_QN.gather(1, columns)
    order = values.argsort(dim=1, descending=True, stable=True)
    return values.gather(1, order), columns.gather(1, order)


def _tensor(values: Matrix) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))

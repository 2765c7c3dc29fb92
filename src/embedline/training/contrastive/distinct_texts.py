"""The distinct texts of a batch, each of which is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedline.models.heads import Encoded
from embedline.training.contrastive.gradcache import Loss
from embedline.training.engine.step_timer import Metrics


def distinct(ids: Sequence[list[int]], queries: int) -> tuple[list[list[int]], Tensor]:
    """Drop repeated texts, so that each is encoded once.

    A query and a document that are equal stay two: with dropout they are two views of one text (SimCSE, Gao
    et al. 2021).

    Args:
        ids: token ids of N texts.
        queries: how many of them, from the first on, are queries.

    Returns:
        The distinct texts in the order of their first occurrence, and the position of each text among them
        (N).
    """
    positions: dict[tuple[bool, bytes], int] = {}
    keys = ((i < queries, np.asarray(row, dtype=np.int32).tobytes()) for i, row in enumerate(ids))
    position = [positions.setdefault(key, len(positions)) for key in keys]
    first = np.unique(position, return_index=True)[1]
    return [ids[i] for i in first], torch.tensor(position)


def repeated(position_N: Tensor, loss: Loss) -> Loss:
    """Turn a loss of N texts into one of the distinct ones among them."""
    if int(position_N.max()) + 1 == len(position_N):
        return loss

    def of_all(encoded: Any) -> tuple[Tensor, Metrics]:
        if isinstance(encoded, Encoded):
            return loss(Encoded(*(None if each is None else each[position_N] for each in encoded)))  # type: ignore[arg-type]
        return loss(encoded[position_N])

    return of_all

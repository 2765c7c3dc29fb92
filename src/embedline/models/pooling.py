"""From token states to one vector a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def mean(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean of the states of real tokens, in fp32 (B × D)."""
    weights = mask_BT.unsqueeze(-1).to(torch.float32)
    return (states_BTD.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def cls(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The state of the first real token (B × D); padding may stand on either side."""
    first = mask_BT.to(torch.int64).argmax(1)
    return states_BTD[torch.arange(len(first), device=first.device), first].float()


def last(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The state of the last real token (B × D); padding may stand on either side."""
    length = mask_BT.shape[1]
    final = length - 1 - mask_BT.to(torch.int64).flip(1).argmax(1)
    return states_BTD[torch.arange(len(final), device=final.device), final].float()


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean, "cls": cls, "last": last}

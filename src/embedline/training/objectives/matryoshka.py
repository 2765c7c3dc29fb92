"""Matryoshka representation learning (Kusupati et al. 2022, eq. 1): one loss over nested prefixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


def matryoshka(
    loss: Callable[[Tensor], Tensor], vectors_ND: Tensor, dims: Sequence[int], weights: Sequence[float] = ()
) -> Tensor:
    """The weighted sum of `loss` over the first d components, for every d in `dims`.

    Args:
        dims: the full width should be among them.
        weights: one a dim; 1 each when empty.
    """
    scale = list(weights) or [1.0] * len(dims)
    total = vectors_ND.new_zeros(())
    for dim, weight in zip(dims, scale, strict=True):
        total = total + weight * loss(vectors_ND[:, :dim])
    return total

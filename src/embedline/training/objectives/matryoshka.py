"""Matryoshka representation learning (Kusupati et al. 2022, eq. 1): one loss over nested prefixes.

L = sum over d of  w_d · loss(the first d components)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor


def matryoshka(
    loss: Callable[[Tensor], Tensor],
    vectors_ND: Tensor,
    dims: Sequence[int],
    weights: Sequence[float] = (),
    *,
    layer_norm: bool = False,
) -> Tensor:
    """The weighted sum of `loss` over the first d components, for every d in `dims`.

    Args:
        loss: called with N × d for each d; a loss of cosines normalises them itself.
        dims: the full width should be among them.
        weights: one a dim; 1 each when empty.
        layer_norm: subtract a vector's own mean and divide by its own deviation before it is cut, without
            parameters, as Nomic Embed does (Nussbaum et al. 2024): no prefix is left with the components
            that are large in all vectors. Whoever cuts the trained model's vectors does it too.
    """
    if layer_norm:
        vectors_ND = F.layer_norm(vectors_ND, vectors_ND.shape[-1:])
    scale = list(weights) or [1.0] * len(dims)
    total = vectors_ND.new_zeros(())
    for dim, weight in zip(dims, scale, strict=True):
        total = total + weight * loss(vectors_ND[:, :dim])
    return total

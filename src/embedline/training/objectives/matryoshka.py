"""Matryoshka representation learning (Kusupati et al. 2022, eq. 1): one loss over nested prefixes.

L = sum over d of  w_d · loss(the first d components)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


def matryoshka(
    loss: Callable[[Tensor], Tensor],
    vectors_ND: Tensor,
    dims: Sequence[int],
    weights: Sequence[float] = (),
) -> Tensor:
    """Return the weighted sum of `loss` over the first d components, for every d in `dims`.

    Args:
        vectors_ND: N × D, as they are cut in use: Nomic's layer norm before the cut is a part of the model
            (`EmbedderSpec.layer_norm`), because cutting the trained model's vectors needs it, too.
        loss: called with N × d for each d; a loss of cosines normalises them itself.
        dims: the full width should be among them.
        weights: one a dim; 1 each when empty.
    """
    scale = list(weights) or [1.0] * len(dims)
    total = vectors_ND.new_zeros(())
    for dim, weight in zip(dims, scale, strict=True):
        total = total + weight * loss(vectors_ND[:, :dim])
    return total

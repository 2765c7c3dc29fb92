"""Attention as plain matrix products, for training on a CPU.

On a CPU, PyTorch's fused kernel is fast in the forward pass and slow in the backward pass, where it computes
the products of a batch row by row, and its dropout draws number by number. Texts of usual length train about
1.2 to 1.6 times faster when the probabilities are kept and the products are computed by the matrix library
(tests/benchmarks/README.md).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PLAIN = "plain"
MAX_TOKENS = 512  # tokens; the probabilities of longer texts (T × T a head) would fill the memory


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Compute attention through transformers' kernel interface: B × H × T × D to B × T × H × D.

    Every other case (evaluation, long texts, a causal mask without a tensor, biases) is passed to sdpa.
    """
    causal = more.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if (
        not module.training
        or query.device.type != "cpu"
        or key.shape[2] > MAX_TOKENS
        or (attention_mask is None and causal)
        or (attention_mask is not None and attention_mask.dtype != torch.bool)
        or any(more.get(name) is not None for name in ("position_bias", "cache", "softcap", "s_aux"))
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if torch.is_autocast_enabled("cpu"):  # rotated queries and keys may be fp32 while values are not
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    mixed: Tensor = _Attention.apply(query, key, value, attention_mask, scale, dropout)  # type: ignore[no-untyped-call]
    return mixed.transpose(1, 2).contiguous(), None


class _Attention(torch.autograd.Function):
    """Attention, softmax(scale · Q Kᵀ) V, with dropout of the probabilities (Vaswani et al. 2017, eq. 1)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
    ) -> Tensor:
        """Return the attention's output; keep the probabilities for `backward`."""
        with torch.autocast("cpu", enabled=False):
            scores = (query * scale) @ key.transpose(-1, -2)
            if mask is not None:  # not -inf: a row of padding may attend to no key
                scores = scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
            attended = scores.softmax(-1)
            kept = _kept(attended.shape, dropout) if dropout else None
            mixed = _dropped(attended, kept) @ value
            if kept is not None:
                mixed.mul_(1 / (1 - dropout))
        ctx.save_for_backward(query, key, value, attended, kept)
        ctx.scale, ctx.dropout = scale, dropout
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value; None for the other arguments."""
        query, key, value, attended, kept = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            gradient = gradients[0]
            if kept is not None:
                gradient = gradient * (1 / (1 - ctx.dropout))
            of_value = _dropped(attended, kept).transpose(-1, -2) @ gradient
            of_attended = _dropped(gradient @ value.transpose(-1, -2), kept)
            of_scores = torch._softmax_backward_data(of_attended, attended, -1, attended.dtype)
            of_query = (of_scores @ key).mul_(ctx.scale)
            of_key = (of_scores.transpose(-1, -2) @ query).mul_(ctx.scale)
        return of_query, of_key, of_value, None, None, None


def _dropped(values: Tensor, kept: Tensor | None) -> Tensor:
    return values if kept is None else torch.where(kept, values, 0.0)


def _kept(shape: torch.Size, dropout: float) -> Tensor:
    """Draw a mask, True with probability 1 - dropout (to 1/65536).

    On a CPU this is three times as fast as `bernoulli_`: each 64 random bits of PyTorch's generator are split
    into four draws.
    """
    count = shape.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return bits.view(torch.int16)[:count].view(shape) >= round(dropout * 65536) - 32768


ALL_ATTENTION_FUNCTIONS.register(PLAIN, plain_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PLAIN, sdpa_mask)

"""The longest row that a model takes, and the extension of learned positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedline.errors import InputError
from embedline.models.rotary import has_dynamic_ntk

_TABLE_NAMES = {"position_embeddings", "wpe"}


def max_tokens(backbone: PreTrainedModel) -> int | None:
    """Return the tokens of the longest row, special ones included; None where there is no bound.

    Rotary positions can be computed at any length, but are meaningful only up to the length of the training:
    their bound is `max_position_embeddings`, unless dynamic NTK stretches them.
    """
    learned = _learned(backbone)
    if learned:
        return learned.tokens
    if has_dynamic_ntk(backbone.config):
        return None
    bound: int | None = getattr(backbone.config, "max_position_embeddings", None)
    return bound if bound is not None and bound > 0 else None  # XLNet, without a bound, has -1


def require_positions(backbone: PreTrainedModel, tokens: int, where: str) -> None:
    """Refuse rows longer than the model's positions.

    Raises:
        InputError: naming `where`, the setting of `tokens`.
    """
    longest = max_tokens(backbone)
    if longest is not None and tokens > longest:
        setting = "model.positions" if _learned(backbone) else "model.dynamic_ntk"
        raise InputError(
            f"needs rows of {tokens} tokens, and {backbone.config.model_type} has positions for {longest}.",
            where=where,
            fix=f"Shorten it, or set {setting}.",
        )


def extend_positions(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int) -> None:
    """Extend learned positions to `positions` tokens by repeating the table (XLM-R: 512 → 8192, BGE-M3).

    Inputs that fitted before give the same states, bit for bit. A model with enough positions is unchanged.

    Raises:
        InputError: the model has no learned positions.
    """
    learned = _learned(backbone)
    if learned is None:
        raise InputError(
            f"{backbone.config.model_type} has no learned positions to extend.",
            where="model.positions",
            fix="Use model.dynamic_ntk for rotary positions, or omit this setting.",
        )
    if positions <= learned.tokens:
        return
    table, first = learned.table, learned.first
    old_PD = table.weight.detach()
    repeats = -(-positions // learned.tokens)
    new_PD = torch.cat([old_PD[:first], old_PD[first:].repeat(repeats, 1)[:positions]])
    table.weight = nn.Parameter(new_PD.contiguous(), requires_grad=table.weight.requires_grad)
    table.num_embeddings = len(new_PD)
    for name, buffer in list(learned.owner.named_buffers(recurse=False)):
        if buffer.shape == (1, len(old_PD)):
            kept = name not in learned.owner._non_persistent_buffers_set
            learned.owner.register_buffer(name, _longer(name, buffer, len(new_PD)), persistent=kept)
    backbone.config.max_position_embeddings = len(new_PD)
    tokenizer.model_max_length = positions


def _longer(name: str, buffer: Tensor, length: int) -> Tensor:
    """Lengthen a buffer: `position_ids` continue counting, token types repeat."""
    if name == "position_ids":
        return torch.arange(length, dtype=buffer.dtype, device=buffer.device)[None]
    return buffer[:, :1].repeat(1, length)


@dataclass(frozen=True)
class _LearnedPositions:
    """A table of positions, the module that owns it, and the row of a text's first token."""

    owner: nn.Module
    table: nn.Embedding
    first: int

    @property
    def tokens(self) -> int:
        return len(self.table.weight) - self.first


def _learned(backbone: PreTrainedModel) -> _LearnedPositions | None:
    for owner in backbone.modules():
        for name, module in owner.named_children():
            if name in _TABLE_NAMES and isinstance(module, nn.Embedding):
                # RoBERTa counts from padding_idx + 1; the rows before that are unused.
                first = 0 if module.padding_idx is None else module.padding_idx + 1
                return _LearnedPositions(owner, module, first)
    return None

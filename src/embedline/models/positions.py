"""How long a row a model can take, and more room for models that learned a vector a position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedline.errors import InputError
from embedline.models.rotary import has_dynamic_ntk

_NAMES = {"position_embeddings", "wpe"}


def max_tokens(backbone: PreTrainedModel) -> int | None:
    """Tokens of the longest row, special ones included; None where there is no bound.

    Rotary positions can be computed at any length, but mean something only as far as the model was trained:
    their bound is `max_position_embeddings`, unless dynamic NTK stretches them.
    """
    learned = _learned(backbone)
    if learned:
        return learned.tokens
    if has_dynamic_ntk(backbone.config):
        return None
    bound: int | None = getattr(backbone.config, "max_position_embeddings", None)
    return bound


def require_room(backbone: PreTrainedModel, tokens: int, where: str) -> None:
    """Refuse rows longer than the model's positions.

    Raises:
        InputError: naming `where`, the setting that asks for `tokens`.
    """
    room = max_tokens(backbone)
    if room is not None and tokens > room:
        more = "model.positions" if _learned(backbone) else "model.dynamic_ntk"
        raise InputError(
            f"needs rows of {tokens} tokens, and {backbone.config.model_type} has positions for {room}.",
            where=where,
            fix=f"Shorten it, or set {more}.",
        )


def extend_positions(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int) -> None:
    """Room for `positions` tokens, by repeating the learned table (XLM-R: 512 → 8192, BGE-M3).

    Inputs that fitted before give the same states, bit for bit. A model that has the room is left alone.

    Raises:
        InputError: the model has no learned positions.
    """
    learned = _learned(backbone)
    if learned is None:
        raise InputError(
            f"{backbone.config.model_type} has no learned positions to extend.",
            where="model.positions",
            fix="Use model.dynamic_ntk for rotary positions, or leave it out.",
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
    """`position_ids` count on; token types are the same everywhere."""
    if name == "position_ids":
        return torch.arange(length, dtype=buffer.dtype, device=buffer.device)[None]
    return buffer[:, :1].repeat(1, length)


@dataclass(frozen=True)
class _Learned:
    """A table of positions, the module it belongs to, and the row of a text's first token."""

    owner: nn.Module
    table: nn.Embedding
    first: int

    @property
    def tokens(self) -> int:
        return len(self.table.weight) - self.first


def _learned(backbone: PreTrainedModel) -> _Learned | None:
    for owner in backbone.modules():
        for name, module in owner.named_children():
            if name in _NAMES and isinstance(module, nn.Embedding):
                # RoBERTa counts from padding_idx + 1; the rows before that are no text's.
                first = 0 if module.padding_idx is None else module.padding_idx + 1
                return _Learned(owner, module, first)
    return None

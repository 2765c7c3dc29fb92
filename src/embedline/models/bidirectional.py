"""Decoder language models as encoders: the causal mask taken off, and proof that it is off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from embedline.errors import InputError

_LENGTH = 8
# Of a state's size. Causal models move 0 (rounding alone: 1e-6), tiny random bidirectional ones 0.1 and more.
_MOVED = 1e-5


def is_decoder_family(config: PretrainedConfig) -> bool:
    """Whether the architecture was made to predict the next token, and only that.

    It has a causal head and no masked-language-model head: in transformers, or in the code it carries.
    """
    kind, heads = config.model_type, getattr(config, "auto_map", None) or {}
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in heads:
        return kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES and "AutoModelForMaskedLM" not in heads
    return False


def make_bidirectional(backbone: PreTrainedModel, where: str = "model.base") -> bool:
    """Let every token attend to later ones; written in the config, so that it holds after a reload.

    Returns whether that changed anything.

    A layer that attends within a window keeps its window, now to both sides: its rotary positions were
    never trained on longer distances. A model that looks ahead already is left alone.

    Raises:
        InputError: the architecture stays causal all the same, naming `where`.
    """
    if looks_ahead(backbone):
        return False
    # transformers' mask functions read `is_causal`; most families ignore `use_bidirectional_attention`.
    backbone.config.is_causal = False
    backbone.config.use_cache = False  # nothing is generated token by token
    require_bidirectional(backbone, where)
    return True


def require_bidirectional(backbone: PreTrainedModel, where: str) -> None:
    """Refuse a model in which a changed future token moves no earlier state.

    Args:
        where: what to name in the error: the model's folder or setting.

    Raises:
        InputError: it is causal.
    """
    if not looks_ahead(backbone):
        raise InputError(
            f"{backbone.config.model_type} stays causal: a changed token moves no state before it.",
            where=where,
            fix="Embedline makes decoders bidirectional by is_causal = false in config.json; "
            "this architecture or this version of transformers does not heed it.",
        )


@torch.no_grad()
def looks_ahead(backbone: PreTrainedModel) -> bool:
    """Whether changing a row's last token moves an earlier state, with padding behind it and without.

    Both, because attention takes another path for a batch without padding, where a mask may be left out.
    """
    embeddings: Any = backbone.get_input_embeddings()
    vocabulary = len(embeddings.weight)
    pad = backbone.config.pad_token_id
    # Not torch's generator: a check must not move the seed of what comes after it.
    usable = [token for token in range(vocabulary // 2, vocabulary) if token != pad]
    row = torch.tensor([usable[i % len(usable)] for i in range(_LENGTH)])
    changed = row.clone()
    changed[-1] = usable[_LENGTH % len(usable)]
    ids = torch.stack([row, changed]).to(backbone.device)
    mask = torch.ones_like(ids)
    filler = ids[:, :1] if pad is None else torch.full_like(ids[:, :1], pad)
    padded = torch.cat([ids, filler], dim=1), torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)
    with _at_rest(backbone):
        return all(_moves(backbone, *batch) for batch in ((ids, mask), padded))


def _moves(backbone: PreTrainedModel, ids: Tensor, mask: Tensor) -> bool:
    states_2TD: Tensor = backbone(input_ids=ids, attention_mask=mask).last_hidden_state[:, : _LENGTH - 1]
    one, other = states_2TD.float()
    still = (one - other).abs().max() <= _MOVED * one.abs().max()  # never so among NaN, which others report
    return not bool(still)


@contextmanager
def _at_rest(backbone: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode; flash attention, which needs a GPU and 16 bits, stands aside elsewhere."""
    training = backbone.training
    attention: str = backbone.config._attn_implementation
    aside = attention.startswith("flash") and backbone.device.type == "cpu"
    autocast: Any = torch.autocast(
        backbone.device.type, torch.bfloat16, enabled=attention.startswith("flash") and not aside
    )
    backbone.train(False)
    if aside:
        backbone.set_attn_implementation("sdpa")
    try:
        with autocast:
            yield
    finally:
        if aside:
            backbone.set_attn_implementation(attention)
        backbone.train(training)

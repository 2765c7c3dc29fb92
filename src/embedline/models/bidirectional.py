"""Decoder language models as encoders: remove the causal mask and verify that it is gone."""

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
from embedline.models.attention import use_fp32_attention

_LENGTH = 8
# Change of a state, as a share of its size, that counts. Causal models change by 0 (rounding alone: 1e-6),
# tiny random bidirectional ones by 0.1 and more.
_MIN_CHANGE = 1e-5


def is_decoder_family(config: PretrainedConfig) -> bool:
    """Return whether the architecture was made for next-token prediction only.

    It has a causal head and no masked-language-model head, in transformers or in its own code.
    """
    architecture, heads = config.model_type, getattr(config, "auto_map", None) or {}
    if architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in heads:
        return architecture not in MODEL_FOR_MASKED_LM_MAPPING_NAMES and "AutoModelForMaskedLM" not in heads
    return False


def make_bidirectional(backbone: PreTrainedModel, where: str = "model.base") -> bool:
    """Let every token attend to later ones; stored in the config, so that it holds after a reload.

    A layer that attends within a window keeps its reach, now to both sides: its rotary positions were never
    trained on longer distances. A bidirectional model is left unchanged.

    Returns:
        Whether the model was causal before.

    Raises:
        InputError: the architecture stays causal nevertheless, naming `where`.
    """
    if is_bidirectional(backbone):
        return False
    # transformers' mask functions read `is_causal`; most families ignore `use_bidirectional_attention`.
    backbone.config.is_causal = False
    backbone.config.use_cache = False  # nothing is generated token by token
    _keep_reach(backbone)
    require_bidirectional(backbone, where)
    return True


def _keep_reach(backbone: PreTrainedModel) -> None:
    """Set the window whose bidirectional mask reaches as far as the causal mask reached back.

    transformers counts the token itself into a causal window, but not into a bidirectional one: a window of w
    reaches back w - 1 tokens, and with `is_causal` false w tokens to each side.
    """
    config = backbone.config
    window = getattr(config, "sliding_window", None)
    if not window or window < 1:  # -1: ModernBERT's decoder without windows
        return
    config.sliding_window = window - 1
    if hasattr(config, "local_attention"):  # ModernBERT's decoder: twice the window, and all that it reads
        config.local_attention = 2 * (window - 1)
    for module in backbone.modules():  # layers keep a copy for flash attention
        if getattr(module, "sliding_window", None) == window:
            setattr(module, "sliding_window", window - 1)  # noqa: B010 (a module's attributes are typed as tensors)


def require_bidirectional(backbone: PreTrainedModel, where: str) -> None:
    """Refuse a causal model, in which a changed token changes no earlier state.

    Args:
        where: the model's folder or setting, named in the error.

    Raises:
        InputError: the model is causal.
    """
    if not is_bidirectional(backbone):
        raise InputError(
            f"{backbone.config.model_type} stays causal: a changed token changes no state before it.",
            where=where,
            fix="Embedline makes decoders bidirectional by is_causal = false in config.json; "
            "this architecture or this version of transformers ignores that.",
        )


@torch.no_grad()
def is_bidirectional(backbone: PreTrainedModel) -> bool:
    """Return whether changing a row's last token changes an earlier state, with padding after it and without.

    Both, because attention takes another path for a batch without padding, where a mask may be left out.
    """
    embeddings: Any = backbone.get_input_embeddings()
    vocabulary = len(embeddings.weight)
    pad = backbone.config.pad_token_id
    # Not torch's generator: a check must not advance the random state of what follows.
    usable = [token for token in range(vocabulary // 2, vocabulary) if token != pad]
    row = torch.tensor([usable[i % len(usable)] for i in range(_LENGTH)])
    changed = row.clone()
    changed[-1] = usable[_LENGTH % len(usable)]
    ids = torch.stack([row, changed]).to(backbone.device)
    mask = torch.ones_like(ids)
    filler = ids[:, :1] if pad is None else torch.full_like(ids[:, :1], pad)
    padded = torch.cat([ids, filler], dim=1), torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)
    with evaluating(backbone):
        return all(_changes(backbone, *batch) for batch in ((ids, mask), padded))


def _changes(backbone: PreTrainedModel, ids: Tensor, mask: Tensor) -> bool:
    states_2TD: Tensor = backbone(input_ids=ids, attention_mask=mask).last_hidden_state[:, : _LENGTH - 1]
    original, changed = states_2TD.float()
    same = (original - changed).abs().max() <= _MIN_CHANGE * original.abs().max()
    return not bool(same)  # NaN counts as changed: it is reported where vectors are made


@contextmanager
def evaluating(backbone: PreTrainedModel) -> Iterator[None]:
    """Switch to evaluation mode, and on a CPU from flash attention (needs a GPU and 16 bits) to another."""
    training = backbone.training
    attention: str = backbone.config._attn_implementation
    replaced = attention.startswith("flash") and backbone.device.type == "cpu"
    autocast: Any = torch.autocast(
        backbone.device.type, torch.bfloat16, enabled=attention.startswith("flash") and not replaced
    )
    backbone.train(False)
    if replaced:
        use_fp32_attention(backbone)
    try:
        with autocast:
            yield
    finally:
        if replaced:
            backbone.set_attn_implementation(attention)
        backbone.train(training)

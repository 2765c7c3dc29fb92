"""Backbones: new ones of any architecture that transformers has natively, and loaded ones fitted to a run."""

from __future__ import annotations

import logging
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from embedline.config.model import ModelConfig
from embedline.errors import InputError
from embedline.models.bidirectional import is_decoder_family, make_bidirectional, require_bidirectional
from embedline.models.folder_checks import require_fast_tokenizer
from embedline.models.modeling_embedline import auto_class
from embedline.models.positions import extend_positions
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.tokenizer import padded_vocabulary

logger = logging.getLogger(__name__)


def new_backbone(
    architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """Make a model with random weights for `tokenizer`; a decoder's architecture is made bidirectional.

    Args:
        architecture: a model_type of transformers.
        settings: values of the architecture's config, such as hidden_size.
        seed: of the random weights.

    Raises:
        InputError: an architecture that transformers does not have or that stays causal, a setting that it
            does not have or refuses, a vocabulary smaller than the tokenizer's.
    """
    try:
        defaults = AutoConfig.for_model(architecture)
    except ValueError as error:
        raise InputError(
            f"transformers has no architecture {architecture!r}.",
            where="model.architecture",
            fix="Use a model_type such as modernbert, nomic_bert, xlm-roberta or llama.",
        ) from error
    unknown = [key for key in settings if not hasattr(defaults, key)]
    if unknown:
        raise InputError(
            f"{architecture} has no setting {', '.join(map(repr, unknown))}.", where="model.settings"
        )
    values: dict[str, Any] = {
        # No dropout (as Nomic): one pass over little data needs no regularisation.
        **{key: 0.0 for key, value in defaults.to_dict().items() if "drop" in key and value},
        "vocab_size": padded_vocabulary(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    try:
        values |= _head_sizes(defaults, settings) | _full_attention(defaults, settings)
        config = AutoConfig.for_model(architecture, **{**values, **settings})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise InputError(
            f"{architecture} refuses these values: {' '.join(str(error).split())}.", where="model.settings"
        ) from error
    heads = getattr(config, "num_attention_heads", 1)
    if not heads or config.hidden_size % heads:
        raise InputError(
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {heads}.",
            where="model.settings",
        )
    torch.manual_seed(seed)
    try:
        model: PreTrainedModel = auto_class(config).from_config(config).float()
    except ValueError as error:
        raise InputError(
            f"{architecture} cannot be built: {' '.join(str(error).split())[:150]}",
            where="model.architecture",
        ) from error
    _require_tokenizer(model, tokenizer, "model.settings")
    try:
        _require_both_sides(model, "model.architecture")
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ) as error:  # only a forward pass shows that these sizes do not fit
        raise InputError(
            f"{architecture} cannot run with these values: {' '.join(str(error).split())[:150]}",
            where="model.settings",
        ) from error
    return model


def prepare_backbone(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: ModelConfig
) -> None:
    """Fit a base or a new model to the run's config, in place.

    A decoder becomes bidirectional, learned positions are extended, rotary ones stretched. All changes are
    stored in the backbone's config; a second call changes nothing.

    Raises:
        InputError: naming the setting that this backbone does not support.
    """
    where = "model.base" if model.base else "model.architecture"
    require_fast_tokenizer(tokenizer, where)
    _require_tokenizer(backbone, tokenizer, where)
    _require_both_sides(backbone, where)
    if model.positions is not None:
        extend_positions(backbone, tokenizer, model.positions)
    if model.dynamic_ntk is not None:
        apply_dynamic_ntk(backbone, model.dynamic_ntk)


def _require_both_sides(backbone: PreTrainedModel, where: str) -> None:
    """Make a decoder bidirectional; refuse another architecture that is causal."""
    if is_decoder_family(backbone.config):
        if make_bidirectional(backbone, where) and where == "model.base":
            # bare language models are made bidirectional when loaded: this one was an embedding model
            logger.warning(
                "model.base: its vectors were made with a causal mask, which is now removed: train it further"
            )
    else:
        require_bidirectional(backbone, where)


def _require_tokenizer(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    if tokenizer.pad_token_id is None:
        raise InputError(
            "its tokenizer has no pad token, and batches need one.",
            where=where,
            fix='Name one in tokenizer_config.json: "pad_token": '
            f'"{tokenizer.eos_token or tokenizer.unk_token or "<pad>"}".',
        )
    embeddings: Any = backbone.get_input_embeddings()
    if len(tokenizer) > len(embeddings.weight):
        raise InputError(
            f"vocab_size {len(embeddings.weight)} is less than the tokenizer's {len(tokenizer)} tokens.",
            where=where,
        )


def _head_sizes(defaults: PretrainedConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Derive a head's width and the number of key heads from the given sizes, not the default model's."""
    given = {"hidden_size", "num_attention_heads"} & set(settings)
    width = settings.get("hidden_size", defaults.hidden_size)
    heads = settings.get("num_attention_heads", getattr(defaults, "num_attention_heads", 0))
    if not given or not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        return {}  # the architecture's own error is clearer
    sizes = {
        "head_dim": width // heads,
        "num_key_value_heads": heads,
        "query_pre_attn_scalar": width // heads,  # Gemma scales by the head's width
    }
    return {key: value for key, value in sizes.items() if hasattr(defaults, key)}


def _full_attention(defaults: PretrainedConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Switch windowed attention off unless it is configured: it suits far larger models than new ones."""
    if {"layer_types", "sliding_window", "use_sliding_window", "local_attention"} & set(settings):
        return {}
    types = getattr(defaults, "layer_types", None)
    if types and set(types) <= {"full_attention", "sliding_attention"}:
        layers = settings.get("num_hidden_layers", defaults.num_hidden_layers)
        return {"layer_types": ["full_attention"] * layers}
    return {"sliding_window": None} if getattr(defaults, "sliding_window", None) and not types else {}

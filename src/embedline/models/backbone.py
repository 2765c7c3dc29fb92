"""A backbone from scratch, of any architecture that transformers has natively; one made to fit a run."""

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
from embedline.models.modeling_embedline import auto_class
from embedline.models.positions import extend_positions
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.tokenizer import padded_vocabulary

logger = logging.getLogger(__name__)


def new_backbone(
    architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """A model with random weights for `tokenizer`; a decoder's architecture is made bidirectional.

    Raises:
        InputError: an architecture transformers does not know or that stays causal, a setting it does not
            have or refuses, a vocabulary smaller than the tokenizer's.
    """
    try:
        defaults = AutoConfig.for_model(architecture)
    except ValueError as error:
        raise InputError(
            f"transformers knows no architecture {architecture!r}.",
            where="model.architecture",
            fix="Use a model_type such as modernbert, nomic_bert, xlm-roberta or llama.",
        ) from error
    unknown = [key for key in settings if not hasattr(defaults, key)]
    if unknown:
        raise InputError(
            f"{architecture} has no setting {', '.join(map(repr, unknown))}.", where="model.settings"
        )
    values: dict[str, Any] = {
        # From scratch, in one pass over little data, nothing is to be regularised away (Nomic: no dropout).
        **{key: 0.0 for key, value in defaults.to_dict().items() if "drop" in key and value},
        "vocab_size": padded_vocabulary(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    try:
        values |= _heads(defaults, settings) | _full_attention(defaults, settings)
        config = AutoConfig.for_model(architecture, **{**values, **settings})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise InputError(
            f"{architecture} refuses them: {' '.join(str(error).split())}.", where="model.settings"
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
            f"{architecture} cannot be made: {' '.join(str(error).split())[:150]}",
            where="model.architecture",
        ) from error
    _require_tokenizer(model, tokenizer, "model.settings")
    try:
        _see_both_ways(model, "model.architecture")
    except (RuntimeError, ValueError, IndexError) as error:  # sizes that only a pass shows not to fit
        raise InputError(
            f"{architecture} cannot run with them: {' '.join(str(error).split())[:150]}",
            where="model.settings",
        ) from error
    return model


def prepare_backbone(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, model: ModelConfig
) -> None:
    """Make a base, or a model from scratch, what the run's config asks for: it is changed in place.

    A decoder becomes bidirectional, learned positions are extended, rotary ones stretched. All of it is
    written in the backbone's config, and doing it again changes nothing.

    Raises:
        InputError: naming the setting that this backbone cannot be given.
    """
    where = "model.base" if model.base else "model.architecture"
    _require_tokenizer(backbone, tokenizer, where)
    _see_both_ways(backbone, where)
    if model.positions is not None:
        extend_positions(backbone, tokenizer, model.positions)
    if model.dynamic_ntk is not None:
        apply_dynamic_ntk(backbone, model.dynamic_ntk)


def _see_both_ways(backbone: PreTrainedModel, where: str) -> None:
    if is_decoder_family(backbone.config):
        if make_bidirectional(backbone, where) and where == "model.base":
            # a bare language model is turned when it is loaded: this one was an embedding model
            logger.warning(
                "model.base: its vectors were made with a causal mask, which is taken off: train it further"
            )
    else:
        require_bidirectional(backbone, where)


def _require_tokenizer(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    if tokenizer.pad_token_id is None:
        raise InputError(
            "its tokenizer has no pad token, and a batch needs one.",
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


def _heads(defaults: PretrainedConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """A head's width and the keys' heads follow the sizes asked for, not the default model's."""
    asked = {"hidden_size", "num_attention_heads"} & set(settings)
    width = settings.get("hidden_size", defaults.hidden_size)
    heads = settings.get("num_attention_heads", getattr(defaults, "num_attention_heads", 0))
    if not asked or not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        return {}  # what is wrong with them the architecture says itself
    fitting = {
        "head_dim": width // heads,
        "num_key_value_heads": heads,
        "query_pre_attn_scalar": width // heads,  # Gemma scales by its head's width
    }
    return {key: value for key, value in fitting.items() if hasattr(defaults, key)}


def _full_attention(defaults: PretrainedConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """Windows are for models far larger than those trained from scratch here, unless they are asked for."""
    if {"layer_types", "sliding_window", "use_sliding_window", "local_attention"} & set(settings):
        return {}
    kinds = getattr(defaults, "layer_types", None)
    if kinds and set(kinds) <= {"full_attention", "sliding_attention"}:
        layers = settings.get("num_hidden_layers", defaults.num_hidden_layers)
        return {"layer_types": ["full_attention"] * layers}
    return {"sliding_window": None} if getattr(defaults, "sliding_window", None) and not kinds else {}

"""A backbone from scratch, of any encoder architecture that transformers has natively."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from embedline.errors import InputError
from embedline.models.tokenizer import padded_vocabulary

# Training from scratch on one pass over little data: nothing is regularised away (Nomic: no dropout).
_NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "attention_dropout": 0.0,
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "classifier_dropout": 0.0,
}


def new_backbone(
    architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """A model with random weights for `tokenizer`.

    Raises:
        InputError: an architecture transformers does not know, or a setting it does not have.
    """
    try:
        defaults = AutoConfig.for_model(architecture)
    except ValueError as error:
        raise InputError(
            f"transformers knows no architecture {architecture!r}.",
            where="model.architecture",
            fix="Use a model_type such as modernbert, nomic_bert or bert.",
        ) from error
    unknown = [key for key in settings if not hasattr(defaults, key)]
    if unknown:
        raise InputError(
            f"{architecture} has no setting {', '.join(map(repr, unknown))}.", where="model.settings"
        )
    values: dict[str, Any] = {key: value for key, value in _NO_DROPOUT.items() if hasattr(defaults, key)}
    values |= {
        "vocab_size": padded_vocabulary(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if architecture == "modernbert" and "layer_types" not in settings:
        layers = settings.get("num_hidden_layers", defaults.num_hidden_layers)
        values["layer_types"] = ["full_attention"] * layers
    config = AutoConfig.for_model(architecture, **{**values, **settings})
    heads = getattr(config, "num_attention_heads", 1)
    if config.hidden_size % heads:
        raise InputError(
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {heads}.",
            where="model.settings",
        )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModel.from_config(config, attn_implementation="sdpa")
    return model.float()

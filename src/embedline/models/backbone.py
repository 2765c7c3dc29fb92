"""A backbone from scratch, of any encoder architecture that transformers has natively."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from embedline.errors import InputError
from embedline.models.tokenizer import padded_vocabulary


def new_backbone(
    architecture: str, settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int
) -> PreTrainedModel:
    """A model with random weights for `tokenizer`.

    Raises:
        InputError: an architecture transformers does not know, or a setting it does not have or refuses.
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
        if architecture == "modernbert" and "layer_types" not in settings:
            layers = settings.get("num_hidden_layers", defaults.num_hidden_layers)
            values["layer_types"] = ["full_attention"] * layers
        config = AutoConfig.for_model(architecture, **{**values, **settings})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise InputError(
            f"{architecture} refuses them: {' '.join(str(error).split())}.", where="model.settings"
        ) from error
    heads = getattr(config, "num_attention_heads", 1)
    if config.hidden_size % heads:
        raise InputError(
            f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {heads}.",
            where="model.settings",
        )
    torch.manual_seed(seed)
    make: Any = AutoModel.from_config
    model: PreTrainedModel = make(config, attn_implementation="sdpa").float()
    return model

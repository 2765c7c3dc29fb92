"""A model folder opened without its weights: what would fail when it is loaded fails here, in a second.

Config, tokenizer and the names and shapes of the weights are read. Whether a base can become bidirectional
shows in one random layer of its architecture.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from embedline.config.model import ModelConfig
from embedline.models.bidirectional import is_decoder_family, make_bidirectional, require_bidirectional
from embedline.models.dense import read_dense_layers, require_dense_weights
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import spec_from_config
from embedline.models.folder_checks import (
    is_native,
    require_fast_tokenizer,
    require_same_tokenizer,
    require_tokenizer,
)
from embedline.models.lengths import require_dims, require_lengths
from embedline.models.model_files import CARD, require_files
from embedline.models.modeling_embedline import auto_class
from embedline.models.parts import Parts, load_parts
from embedline.models.positions import extend_positions
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.st_modules import transformer_folder
from embedline.models.stated import Stated, require_unstated
from embedline.models.third_party import third_party_spec

_LARGEST_LAYER = 3e8  # weights: about a gigabyte


def open_model(folder: Path, stated: Stated, *, trust_remote_code: bool = False) -> str:
    """Open a folder as `load_embedder` would load it; return what would be assumed about its vectors.

    Raises:
        InputError: it cannot be loaded.
    """
    return _open(folder, stated, trust_remote_code, as_base=False)[1]


def _open(folder: Path, stated: Stated, trust_remote_code: bool, *, as_base: bool) -> tuple[Parts, str]:
    require_files(folder, trust_remote_code)
    inner = transformer_folder(folder)
    parts = load_parts(inner, trust_remote_code=trust_remote_code, weights=False)
    require_tokenizer(parts.tokenizer, parts.backbone, inner)
    if (folder / CARD).is_file():
        require_unstated(folder, stated)
        return parts, ""
    require_dense_weights(folder)
    rule = parts.vector_rule(folder, stated, as_base=as_base)
    third_party_spec(folder, parts.backbone, parts.tokenizer, rule.pooling)  # refuses unsupported modules
    return parts, rule.assumed


def open_base(folder: Path, model: ModelConfig) -> str:
    """Open the base of a training; return what would be assumed about its own vectors.

    Raises:
        InputError: it cannot be loaded, or not trained as the run is to train it.
    """
    stated = Stated(model.base_pooling, model.base_causal)
    parts, assumed = _open(folder, stated, model.trust_remote_code, as_base=True)
    require_fast_tokenizer(parts.tokenizer, "model.base")
    _require_both_sides(parts.backbone.config)
    with torch.device("meta"):
        _require_fit(parts, model, folder)
    return assumed


def _require_fit(parts: Parts, model: ModelConfig, folder: Path) -> None:
    """Refuse a base that does not fit the run's pooling, heads, positions, lengths or dims."""
    dense_layers = read_dense_layers(folder, parts.backbone.config.hidden_size)
    spec = spec_from_config(model, before=EmbedderSpec(dense_layers=dense_layers))
    embedder = Embedder(parts.backbone, parts.tokenizer, spec)
    if model.positions is not None:
        extend_positions(parts.backbone, parts.tokenizer, model.positions)
    if model.dynamic_ntk is not None:
        apply_dynamic_ntk(parts.backbone, model.dynamic_ntk)
    require_same_tokenizer(embedder)
    require_lengths(embedder)
    require_dims(embedder)


def _require_both_sides(config: PretrainedConfig) -> None:
    """Refuse an architecture that stays causal, as one random layer of it shows."""
    layer = _one_layer(config)
    if layer is None:  # the loaded model is checked again
        return
    if is_decoder_family(config):
        make_bidirectional(layer, "model.base")
    else:
        require_bidirectional(layer, "model.base")


def _one_layer(config: PretrainedConfig) -> PreTrainedModel | None:
    """Make a model with one layer of the architecture and few tokens; None where that does not work."""
    if not is_native(config):
        return None
    layers = getattr(config, "num_hidden_layers", 0)
    small: Any = copy.deepcopy(config)
    try:
        for name, value in vars(config).items():
            if isinstance(value, list) and len(value) == layers:
                setattr(small, name, value[-1:])
        small.num_hidden_layers, small.vocab_size = 1, 64
        small.pad_token_id = 0
        small._attn_implementation = "eager"
        build: Any = auto_class(small).from_config
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in build(small).parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(small).float() if weights < _LARGEST_LAYER else None
    except (
        *(RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError),
        *(ImportError, StrictDataclassError),
    ):
        return None

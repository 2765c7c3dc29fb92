"""Prompts, lengths and BGE-M3's heads of model folders that other libraries saved."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedline.config.model import LatentConfig, Prompt
from embedline.errors import InputError
from embedline.models.dense import read_dense_layers
from embedline.models.embedder import DenseSpec, EmbedderSpec
from embedline.models.model_files import read_json
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.pooling import POOLING
from embedline.models.positions import max_tokens
from embedline.models.prompts import MTEB_TYPES, PromptTable
from embedline.models.st_checks import require_supported
from embedline.models.st_modules import MODULES, find_module, read_modules, transformer_config

# sentence-transformers' names of poolings, older and newer, and ours.
POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
# Poolings that sentence-transformers has too: a model with another one is saved with its own class.
ST_POOLINGS = frozenset(POOLING_MODES.values()) & POOLING.keys()
_NO_LENGTH = 10**9  # a tokenizer without a bound has model_max_length 10 ** 30
# FlagEmbedding's file of each head, and the name of its weights in `Embedder.heads`.
_M3_FILES = {
    "lexical": ("sparse_linear.pt", "lexical.weigh"),
    "multi_vector": ("colbert_linear.pt", "multi_vector.project"),
}


def third_party_spec(
    folder: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: str
) -> EmbedderSpec:
    """Read the spec of a sentence-transformers, FlagEmbedding or transformers folder.

    Args:
        tokenizer: changed in place to fold case where the folder's settings require it.
        pooling: found by `read_vector_rule`.

    Raises:
        InputError: the folder has a module, a layer norm or a similarity that Embedline does not have, or
            modules in another order.
    """
    require_supported(folder)
    if transformer_config(folder).get("do_lower_case"):
        _lowercase(tokenizer)
    width = backbone.config.hidden_size
    heads = third_party_heads(folder)
    token_width = heads["multi_vector.project.weight"].shape[0] if heads else width
    query_length, document_length = _lengths(folder, backbone, tokenizer)
    return EmbedderSpec(
        pooling=pooling,
        dense_layers=read_dense_layers(folder, width),
        layer_norm=_layer_norm(folder),
        heads=("dense", *_M3_FILES) if heads else ("dense",),
        multi_vector_width=None if token_width == width else token_width,
        query_length=query_length,
        document_length=document_length,
        prompts=read_prompts(folder),
    )


def with_own_pooling(spec: EmbedderSpec, config: EmbedlineConfig) -> EmbedderSpec:
    """Return `spec` with the pooling that the config of an `EmbedlineModel` names."""
    return replace(
        spec,
        pooling=config.pooling,
        latent=LatentConfig(latents=config.latents, heads=config.latent_heads),
        mcls_every=config.mcls_every,
        dense_layers=tuple(DenseSpec(**layer) for layer in config.dense_layers),
        layer_norm=config.layer_norm,
    )


def _lengths(folder: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Read the lengths at which queries and documents are cut, as in sentence-transformers.

    Its newer versions leave the length to the tokenizer, as a folder without modules.json does: there it is
    512 at most, because the tokenizers of decoders declare up to a million. No length exceeds the model's
    positions.
    """
    saved = transformer_config(folder)
    default = tokenizer.model_max_length
    if not (folder / MODULES).is_file():
        default = min(default, 512)
    longest = max_tokens(backbone) or max(default if default < _NO_LENGTH else 0, 512)
    length = min(saved.get("max_seq_length") or default, longest)
    query_length, document_length = saved.get("query_length"), saved.get("document_length")
    return min(query_length or length, longest), min(document_length or length, longest)


def third_party_heads(folder: Path) -> dict[str, Tensor]:
    """Read the weights of BGE-M3's two linear heads, named as ours; empty unless the folder has both files.

    They are the only pickles that are read, and as tensors only: no code in them can run.

    Raises:
        InputError: a file does not hold a linear layer.
    """
    if not all((folder / file).is_file() for file, _ in _M3_FILES.values()):
        return {}
    weights: dict[str, Tensor] = {}
    for file, name in _M3_FILES.values():
        try:
            linear = torch.load(folder / file, map_location="cpu", weights_only=True)
            weights |= {f"{name}.{key}": linear[key].float() for key in ("weight", "bias")}
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise InputError(
                "does not hold a linear layer's weight and bias.", where=str(folder / file)
            ) from error
    return weights


def _lowercase(tokenizer: PreTrainedTokenizerBase) -> None:
    """Fold case before all other steps, in place, as sentence-transformers does with do_lower_case."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"do_lower_case cannot be applied to the slow tokenizer {type(tokenizer).__name__}.",
            where=str(tokenizer.name_or_path),
        )
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
    backend.normalizer = normalizers.Sequence(steps)


def _layer_norm(folder: Path) -> bool:
    """Return whether the vector passes a layer norm without parameters.

    Raises:
        InputError: the layer norm has trained weights.
    """
    module = find_module(read_modules(folder), "LayerNorm")
    if module is None:
        return False
    norm = load_file(folder / module.path / "model.safetensors")
    if (norm["norm.weight"] != 1).any() or (norm["norm.bias"] != 0).any():
        raise InputError(
            "its layer norm has weights, and Embedline's has none.", where=str(folder / module.path)
        )
    return True


def read_prompts(folder: Path) -> PromptTable:
    """Read sentence-transformers' prompts.

    `query` and `document` become the default entry, others keep their name. NAME-query and NAME-document are
    the sides of NAME; mteb's task types become ours.
    """
    config = read_json(folder / "config_sentence_transformers.json")
    saved = {name: text or "" for name, text in (config.get("prompts") or {}).items()}
    always = saved.get(config.get("default_prompt_name") or "", "")  # precedes every text
    # An empty prompt keeps the default one from these texts; without a default it changes nothing.
    prompts = saved if always else {name: text for name, text in saved.items() if text}
    sides: dict[str, dict[str, str]] = {"default": {"query": always, "document": always} if always else {}}
    for name, text in prompts.items():
        entry, _, side = name.rpartition("-")
        if name in ("query", "document"):
            sides["default"][name] = text
        elif name == "passage":
            sides["default"].setdefault("document", text)
        elif entry and side in ("query", "document"):
            sides.setdefault(MTEB_TYPES.get(entry, entry), {})[side] = text
        else:
            sides.setdefault(MTEB_TYPES.get(name, name), {})["query"] = text
    return PromptTable({name: Prompt(**texts) for name, texts in sides.items() if texts})

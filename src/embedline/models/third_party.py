"""What the model folders of others say: pooling, prompts, lengths, and BGE-M3's heads."""

from __future__ import annotations

import json
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
from embedline.models.embedder import EmbedderSpec
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.pooling import POOLING
from embedline.models.positions import max_tokens
from embedline.models.prompts import MTEB_TYPES, PromptTable

MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_KNOWN = {"Transformer", "Pooling", "LayerNorm", "Normalize"}
_NO_LENGTH = 10**9  # a tokenizer that has no bound says 10 ** 30
# FlagEmbedding's file of each head, and where its weights belong here.
_M3_FILES = {
    "lexical": ("sparse_linear.pt", "lexical.weigh"),
    "multi_vector": ("colbert_linear.pt", "multi_vector.project"),
}


def outside_spec(folder: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> EmbedderSpec:
    """The spec of a sentence-transformers, FlagEmbedding or transformers folder; mean pooling by default.

    Args:
        tokenizer: it is made to fold case where the folder says so.

    Raises:
        InputError: its vectors come about in a way that would not be ours.
    """
    if read_json(folder / "sentence_bert_config.json").get("do_lower_case"):
        _lowercase(tokenizer)
    width = backbone.config.hidden_size
    heads = outside_heads(folder)
    token_width = heads["multi_vector.project.weight"].shape[0] if heads else width
    query_length, document_length = _lengths(folder, backbone, tokenizer)
    return EmbedderSpec(
        pooling=_pooling(folder, "cls" if heads else "mean"),
        layer_norm=_layer_norm(folder),
        heads=("dense", *_M3_FILES) if heads else ("dense",),
        multi_vector_width=None if token_width == width else token_width,
        query_length=query_length,
        document_length=document_length,
        prompts=_prompts(folder),
    )


def pools_itself(spec: EmbedderSpec, config: EmbedlineConfig) -> EmbedderSpec:
    """`spec` with the pooling of our own class, which its config says wherever it was saved."""
    return replace(
        spec,
        pooling=config.pooling,
        latent=LatentConfig(latents=config.latents, heads=config.latent_heads),
        mcls_every=config.mcls_every,
        layer_norm=config.layer_norm,
    )


def _lengths(folder: Path, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Where queries and documents are cut, as sentence-transformers cuts them; where it is not asked, at 512.

    Its newer versions leave the length to the tokenizer. None is longer than the model's positions.
    """
    says = read_json(folder / "sentence_bert_config.json")
    of_tokenizer = tokenizer.model_max_length if (folder / "modules.json").is_file() else 512
    room = max_tokens(backbone) or max(of_tokenizer if of_tokenizer < _NO_LENGTH else 0, 512)
    length = min(says.get("max_seq_length") or of_tokenizer, room)
    return min(says.get("query_length") or length, room), min(says.get("document_length") or length, room)


def outside_heads(folder: Path) -> dict[str, Tensor]:
    """The weights of BGE-M3's two linear heads, named as ours; nothing if the folder has not both files.

    They are the only pickles that are read, and as tensors only: no code in them can run.
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
    """Let it fold case first, in place, as sentence-transformers does for a folder that asks for it."""
    backend: Any = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
    backend.normalizer = normalizers.Sequence(steps)


def _modules(folder: Path) -> dict[str, Path]:
    """The modules of a sentence-transformers folder by kind, with their folders."""
    modules: Any = read_json(folder / "modules.json") or []
    return {str(module["type"]).rpartition(".")[2]: folder / module["path"] for module in modules}


def _layer_norm(folder: Path) -> bool:
    """Whether the vector is normed as ours is; a norm with weights of its own is an InputError."""
    module = _modules(folder).get("LayerNorm")
    if module is None:
        return False
    norm = load_file(module / "model.safetensors")
    if (norm["norm.weight"] != 1).any() or (norm["norm.bias"] != 0).any():
        raise InputError("its layer norm has weights, and Embedline's has none.", where=str(module))
    return True


def _pooling(folder: Path, default: str) -> str:
    """The pooling of a sentence-transformers folder; one that we would get wrong is an InputError."""
    strange = [kind for kind in _modules(folder) if kind not in _KNOWN]
    if strange:
        raise InputError(f"has a module that Embedline does not know: {strange[0]}.", where=str(folder))
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if not pooling:
        return default
    asked = pooling.get("pooling_mode") or [key for key, on in pooling.items() if key in MODES and on]
    names = [MODES.get(key, key) for key in ([asked] if isinstance(asked, str) else asked)]
    if len(names) != 1 or names[0] not in POOLING or not pooling.get("include_prompt", True):
        raise InputError(
            f"pools by {' and '.join(names) or 'nothing'}, with include_prompt "
            f"{pooling.get('include_prompt', True)}.",
            where=str(folder / "1_Pooling" / "config.json"),
            fix=f"Embedline knows {', '.join(POOLING)}, prompt included.",
        )
    return names[0]


def _prompts(folder: Path) -> PromptTable:
    """sentence-transformers' prompts: `query` and `document` are the default entry, others go by their name.

    NAME-query and NAME-document are the sides of NAME; a task type in mteb's words is one of ours.
    """
    config = read_json(folder / "config_sentence_transformers.json")
    prompts: dict[str, str] = {name: text for name, text in (config.get("prompts") or {}).items() if text}
    always = prompts.get(config.get("default_prompt_name") or "", "")  # stands before every text
    sides: dict[str, dict[str, str]] = {"default": {"query": always, "document": always} if always else {}}
    for name, text in prompts.items():
        of, _, side = name.rpartition("-")
        if name in ("query", "document"):
            sides["default"][name] = text
        elif name == "passage":
            sides["default"].setdefault("document", text)
        elif of and side in ("query", "document"):
            sides.setdefault(MTEB_TYPES.get(of, of), {})[side] = text
        else:
            sides.setdefault(MTEB_TYPES.get(name, name), {})["query"] = text
    return PromptTable({name: Prompt(**texts) for name, texts in sides.items() if texts})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty when there is no such file."""
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value

"""The model folder: one place that SentenceTransformer, AutoModel and Embedline load, safetensors only.

A backbone that transformers has, with mean, cls or last pooling, is saved as itself and needs no code. Latent
attention, MCLS and dynamic NTK are saved as an `EmbedlineModel`, whose code stands in the folder. The lexical
and the multi-vector head are a file beside either: heads.safetensors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from embedline.artifacts.manifest import file_sha256
from embedline.artifacts.record import write_json
from embedline.config.model import HybridWeights, LatentConfig, ModelConfig
from embedline.errors import InputError
from embedline.models import modeling_embedline, pooling, rotary
from embedline.models.attention import Attention, attention_for, use_attention
from embedline.models.checks import (
    CARD,
    HEADS,
    first_line,
    is_native,
    look_both_ways,
    needs_own_class,
    require_files,
    require_lengths,
    require_parts,
    require_same_tokenizer,
    require_tokenizer,
)
from embedline.models.device import best_device
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.modeling_embedline import EmbedlineConfig, EmbedlineModel, auto_class
from embedline.models.prompts import PromptTable
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.st_files import write_peer_files
from embedline.models.third_party import outside_heads, outside_spec, pools_itself, read_json

__all__ = [
    "CARD",
    "HEADS",
    "load_embedder",
    "read_lineage",
    "save_embedder",
    "spec_from_config",
]


def save_embedder(embedder: Embedder, folder: Path, *, lineage: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write weights, tokenizer, the sentence-transformers files and `embedline.json` into `folder`.

    Low-rank adapters are merged into the model's weights, which then trains as a whole.

    Raises:
        InputError: AutoTokenizer would load another tokenizer for this architecture.
    """
    require_same_tokenizer(embedder)
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(embedder, folder)
    embedder.tokenizer.backend_tokenizer.no_truncation()  # else the file keeps the last call's length
    embedder.tokenizer.save_pretrained(folder)
    write_peer_files(embedder.spec, embedder.width, folder, own_class=needs_own_class(embedder))
    spec = embedder.spec
    card = {
        "format": 1,
        "pooling": spec.pooling,
        "latent": spec.latent.model_dump(),
        "mcls_every": spec.mcls_every,
        "layer_norm": spec.layer_norm,
        "heads": list(spec.heads),
        "multi_vector_width": spec.multi_vector_width,
        "hybrid": spec.hybrid.model_dump(),
        "width": embedder.width,
        "dims": list(spec.dims),
        "query_length": spec.query_length,
        "document_length": spec.document_length,
        "prompts": spec.prompts.as_json(),
        "index_version": _index_version(folder, spec),
        "lineage": list(lineage),
    }
    write_json(folder / CARD, card)


def _save_weights(embedder: Embedder, folder: Path) -> None:
    model: PreTrainedModel = embedder.backbone
    code: dict[str, Path] = {}
    if any("lora_" in name for name, _ in model.named_parameters()):
        from embedline.models.lora import merge_lora

        merge_lora(model)  # in place: a large model has no room beside it for a copy
    if needs_own_class(embedder):
        model = _as_own_class(embedder)
        code = _files(Path(str(module.__file__)) for module in (modeling_embedline, pooling, rotary))
    if not is_native(embedder.backbone.config):  # then its code stands where it was loaded from
        code = _files(Path(str(embedder.backbone.config.name_or_path)).glob("*.py")) | code
    for name, source in code.items():
        if source.parent != folder:
            shutil.copyfile(source, folder / name)
    model.save_pretrained(folder, safe_serialization=True)
    if embedder.heads:
        weights = {name: weight.contiguous() for name, weight in embedder.heads.state_dict().items()}
        save_file(weights, folder / HEADS, metadata={"format": "pt"})


def _files(paths: Iterable[Path]) -> dict[str, Path]:
    return {path.name: path for path in paths}


def _as_own_class(embedder: Embedder) -> EmbedlineModel:
    """Backbone and pooling in one model that transformers can save."""
    spec, tokenizer = embedder.spec, embedder.tokenizer
    inner = embedder.backbone.config.to_dict()
    for key in ("_name_or_path", "architectures", "transformers_version"):  # of another folder
        inner.pop(key, None)
    config = EmbedlineConfig(
        backbone=inner,
        pooling=spec.pooling,
        latents=spec.latent.latents,
        latent_heads=spec.latent.heads,
        mcls_every=spec.mcls_every,
        layer_norm=spec.layer_norm,
        mcls_token_id=tokenizer.cls_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=embedder.backbone.dtype,
        auto_map={
            "AutoConfig": "modeling_embedline.EmbedlineConfig",
            "AutoModel": "modeling_embedline.EmbedlineModel",
        },
    )
    with torch.device("meta"):
        model = EmbedlineModel(config, embedder.backbone)
    model.latent_attention = embedder.latent_attention
    return model


def _index_version(folder: Path, spec: EmbedderSpec) -> str:
    """Vectors of two models must not be mixed: an index records this and compares."""
    files = [[path.name, file_sha256(path)] for path in sorted(folder.glob("*.safetensors"))]
    pools = [spec.pooling, spec.mcls_every if spec.pooling == "mcls" else None, spec.layer_norm]
    return hashlib.sha256(json.dumps([files, pools]).encode()).hexdigest()[:16]


def load_embedder(
    folder: Path,
    *,
    spec: EmbedderSpec | None = None,
    attention: str = "auto",
    trust_remote_code: bool = False,
) -> Embedder:
    """Load a model folder, ours or any sentence-transformers, FlagEmbedding or transformers encoder.

    A language model that is no embedding model yet is made bidirectional; ours must still be.

    Args:
        spec: replaces what the folder says; heads and latent attention must be in the folder
            (`Embedder.with_spec` adds new ones).
        attention: auto, sdpa, flash_attention_2 or plain.
        trust_remote_code: run the model code that the folder carries. Ours never is: it is in this package.

    Raises:
        InputError: no such folder, no safetensors weights, weights that are damaged or of another
            architecture, a tokenizer that does not fit, a causal model, lengths beyond its positions, or a
            way from states to vector that is not ours.
    """
    require_files(folder, trust_remote_code)
    kernel = attention_for(attention, best_device().type)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        ours = read_json(folder / "config.json").get("model_type") == EmbedlineConfig.model_type
        kind: Any = EmbedlineConfig if ours else AutoConfig
        config = kind.from_pretrained(folder, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **local)
        load: Any = EmbedlineModel if ours else auto_class(config)
        model, loading = load.from_pretrained(
            folder,
            use_safetensors=True,
            attn_implementation=_flash(attention, kernel, config.backbone if ours else config),
            output_loading_info=True,
            **local,
        )
        heads = load_file(folder / HEADS) if (folder / HEADS).is_file() else outside_heads(folder)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(folder)) from error
    missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key.split("."))
    if missing:  # transformers would go on with random ones
        raise InputError(f"lacks {len(missing)} weights, {missing[0]} first.", where=str(folder))
    backbone = model.backbone if ours else _text_part(model, folder)
    use_attention(backbone, kernel)
    if loading["missing_keys"]:
        backbone.pooler = None  # nobody uses it, and a random one would make the saved file random
    require_tokenizer(tokenizer, backbone, folder)
    look_both_ways(backbone, folder)
    if has_dynamic_ntk(backbone.config):
        apply_dynamic_ntk(backbone)
    says = _spec_of_card(folder) or outside_spec(folder, backbone, tokenizer)
    if ours:  # also after other libraries have saved it, without the card
        says = pools_itself(says, config)
    embedder = Embedder(backbone.float(), tokenizer, says)
    if ours:
        embedder.latent_attention = model.latent_attention
    _load_heads(embedder.heads, heads, folder)
    if spec is not None:
        require_parts(says, spec, folder)
        embedder = embedder.with_spec(spec)
    require_lengths(embedder)
    return embedder


def _flash(attention: str, kernel: Attention, config: PretrainedConfig) -> str | None:
    """The kernel to load with, where it is flash attention; to others a model is switched."""
    kind = auto_class(config)._model_mapping.get(type(config), None)
    lacks_it = attention == "auto" and not getattr(kind, "_supports_flash_attn", True)
    return None if kernel != "flash_attention_2" or lacks_it else kernel


def _text_part(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model; of one that sees images too (Gemma 3), the part that reads."""
    if model.config.get_text_config() is model.config:
        return model
    part = getattr(model, "language_model", None)
    if not isinstance(part, PreTrainedModel):
        raise InputError(
            f"{model.config.model_type} has a text_config, but no language_model that could be taken alone.",
            where=str(folder),
        )
    return part


def _load_heads(heads: nn.ModuleDict, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    try:
        heads.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(folder / HEADS)) from error


def _spec_of_card(folder: Path) -> EmbedderSpec | None:
    card = read_json(folder / CARD)
    if not card:
        return None
    spec = EmbedderSpec()
    return replace(
        spec,
        pooling=card["pooling"],
        latent=LatentConfig(**card.get("latent", {})),
        mcls_every=card.get("mcls_every", spec.mcls_every),
        layer_norm=card.get("layer_norm", False),
        heads=tuple(card["heads"]),
        multi_vector_width=card.get("multi_vector_width"),
        hybrid=HybridWeights(**card.get("hybrid", {})),
        query_length=card["query_length"],
        document_length=card["document_length"],
        dims=tuple(card["dims"]),
        prompts=PromptTable.from_json(card["prompts"]),
    )


def folder_heads(folder: Path) -> tuple[str, ...]:
    """The heads that a model folder has weights for."""
    card = read_json(folder / CARD)
    if card:
        return tuple(card["heads"])
    return ("dense", "lexical", "multi_vector") if outside_heads(folder) else ("dense",)


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """What each step did to the model, oldest first; nothing for a model of others."""
    history: list[dict[str, Any]] = read_json(folder / CARD).get("lineage", [])
    return history


def spec_from_config(model: ModelConfig, prompts: PromptTable) -> EmbedderSpec:
    """The spec that a run's configuration asks for."""
    return EmbedderSpec(
        pooling=model.pooling,
        latent=model.latent,
        mcls_every=model.mcls_every,
        layer_norm=model.layer_norm,
        heads=tuple(model.heads),
        multi_vector_width=model.multi_vector_width,
        hybrid=model.hybrid,
        query_length=model.query_length,
        document_length=model.document_length,
        dims=tuple(model.dims),  # in the order of the stages' matryoshka_weights
        prompts=prompts,
    )

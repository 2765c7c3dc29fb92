"""The model folder that SentenceTransformer, AutoModel and Embedline load alike; safetensors only.

A backbone that transformers has, with mean, cls or last pooling, is saved as itself and needs no code. Latent
attention, MCLS and dynamic NTK are saved as an `EmbedlineModel`, whose code is copied into the folder. The
weights of the lexical and the multi-vector head are a file beside either: heads.safetensors.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from embedline.config.model import ModelConfig
from embedline.errors import InputError, first_line
from embedline.models import modeling_embedline, pooling, rotary
from embedline.models.attention import attention_for, use_attention
from embedline.models.card import read_lineage, read_spec, write_card
from embedline.models.dense import load_dense_weights
from embedline.models.device import best_device
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder_checks import (
    is_native,
    needs_own_class,
    require_decoder_bidirectional,
    require_parts,
    require_same_tokenizer,
    require_tokenizer,
    set_mask,
)
from embedline.models.lengths import require_lengths
from embedline.models.log_once import warn_once
from embedline.models.model_files import CARD, HEADS, read_json, require_files
from embedline.models.modeling_embedline import EmbedlineConfig, EmbedlineModel
from embedline.models.parts import load_parts
from embedline.models.prompts import PromptTable
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.st_files import write_st_files
from embedline.models.st_modules import transformer_folder
from embedline.models.stated import NOTHING, Stated, require_unstated
from embedline.models.third_party import third_party_heads, third_party_spec, with_own_pooling

_log = logging.getLogger(__name__)
_SPEC_FIELDS = [field.name for field in fields(EmbedderSpec)]

__all__ = [
    "CARD",
    "folder_heads",
    "load_embedder",
    "read_lineage",
    "save_backbone",
    "save_embedder",
    "spec_from_config",
]


def save_embedder(embedder: Embedder, folder: Path, *, lineage: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write weights, tokenizer, the sentence-transformers files and `embedline.json` into `folder`.

    Low-rank adapters are merged into the model's weights, all of which are trainable afterwards.

    Args:
        lineage: what each step did to the model, oldest first.

    Raises:
        InputError: AutoTokenizer would load another tokenizer for this architecture.

    Example:
        >>> embedder = load_embedder(Path("bge-m3"))
        >>> save_embedder(embedder, Path("copy"), lineage=[{"step": "copy"}])
        >>> SentenceTransformer("copy").encode_query(["How do I reset my password?"])
    """
    save_backbone(embedder, folder)
    if embedder.heads:
        weights = {name: weight.contiguous() for name, weight in embedder.heads.state_dict().items()}
        save_file(weights, folder / HEADS, metadata={"format": "pt"})
    write_st_files(embedder, folder, own_class=needs_own_class(embedder))
    write_card(embedder, folder, lineage)


def save_backbone(embedder: Embedder, folder: Path) -> None:
    """Write the weights, the heads' excepted, and the tokenizer, as AutoModel and AutoTokenizer load them.

    Raises:
        InputError: AutoTokenizer would load another tokenizer for this architecture.
    """
    require_same_tokenizer(embedder)
    folder.mkdir(parents=True, exist_ok=True)
    _save_model(embedder, folder)
    embedder.tokenizer.backend_tokenizer.no_truncation()  # else the file keeps the last call's length
    embedder.tokenizer.save_pretrained(folder)


def _save_model(embedder: Embedder, folder: Path) -> None:
    model: PreTrainedModel = embedder.backbone
    code: dict[str, Path] = {}
    if any("lora_" in name for name, _ in model.named_parameters()):
        from embedline.models.lora import merge_lora  # peft is slow to import

        merge_lora(model)  # in place: memory may not hold a copy of a large model
    if needs_own_class(embedder):
        model = _as_own_class(embedder)
        code = _files(Path(str(module.__file__)) for module in (modeling_embedline, pooling, rotary))
    if not is_native(embedder.backbone.config):  # its code is in the folder it was loaded from
        code = _files(Path(str(embedder.backbone.config.name_or_path)).glob("*.py")) | code
    for name, source in code.items():
        if source.parent != folder:
            shutil.copyfile(source, folder / name)
    model.save_pretrained(folder, safe_serialization=True)


def _files(paths: Iterable[Path]) -> dict[str, Path]:
    return {path.name: path for path in paths}


def _as_own_class(embedder: Embedder) -> EmbedlineModel:
    """Join backbone and pooling in one model that transformers can save."""
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
        dense_layers=[layer._asdict() for layer in spec.dense_layers],
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
    model.latent_attention, model.dense_layers = embedder.latent_attention, embedder.dense_layers
    return model


def load_embedder(
    folder: Path,
    *,
    spec: EmbedderSpec | None = None,
    attention: str = "auto",
    trust_remote_code: bool = False,
    stated: Stated = NOTHING,
    as_base: bool = False,
) -> Embedder:
    """Load a model folder: Embedline's, or a sentence-transformers, FlagEmbedding or transformers encoder.

    A decoder saved by Embedline must be bidirectional; that of another folder has the mask of its files. What
    neither they nor `stated` say is refused or assumed, as `read_vector_rule` describes; an assumption is
    logged, except of a base, whose plan has it as a note.

    Args:
        spec: replaces the folder's; heads and latent attention must be in the folder
            (`Embedder.with_spec` adds new ones).
        attention: auto, sdpa, flash_attention_2 or plain.
        trust_remote_code: run the model code that the folder carries. A copy of Embedline's own code is
            never run: it is in this package.
        stated: pooling and mask of a third-party folder.
        as_base: the model is trained from here on, or scored as the start of a training: a language model is
            made bidirectional.

    Raises:
        InputError: no such folder, no safetensors weights, weights that are damaged or of another
            architecture, a tokenizer that does not fit, a causal model, lengths beyond its positions, a
            pooling that Embedline does not have, or one that is stated nowhere.

    Example:
        >>> embedder = load_embedder(Path("model"))
        >>> queries = embedder.encode_side(["How do I reset my password?"], "query")
        >>> scores = queries @ embedder.encode_side(["Open the settings."], "document").T
    """
    require_files(folder, trust_remote_code)
    kernel = attention_for(attention, best_device().type)
    inner = transformer_folder(folder)
    loaded = load_parts(inner, attention=attention, kernel=kernel, trust_remote_code=trust_remote_code)
    tokenizer = loaded.tokenizer
    backbone: Any = loaded.backbone
    use_attention(backbone, kernel)
    if loaded.lacks_pooler:
        backbone.pooler = None  # it is unused, and random weights would make the saved file random
    require_tokenizer(tokenizer, backbone, inner)
    own_spec = read_spec(folder)
    if own_spec is None:
        rule = loaded.vector_rule(folder, stated, as_base=as_base)
        if rule.assumed and not as_base:
            warn_once(_log, rule.assumed)
        set_mask(backbone, rule.causal, folder)
        own_spec = third_party_spec(folder, backbone, tokenizer, rule.pooling)
    else:
        require_unstated(folder, stated)
        require_decoder_bidirectional(backbone, folder)
    if has_dynamic_ntk(backbone.config):
        apply_dynamic_ntk(backbone)
    if isinstance(loaded.config, EmbedlineConfig):  # also when another library saved it, without the card
        require_unstated(folder, stated)
        own_spec = with_own_pooling(own_spec, loaded.config)
    embedder = Embedder(backbone.float(), tokenizer, own_spec)
    if loaded.own:
        embedder.latent_attention = loaded.model.latent_attention
        embedder.dense_layers = loaded.model.dense_layers.to(torch.float32)
    else:
        load_dense_weights(embedder.dense_layers, folder)
    _load_heads(embedder.heads, loaded.heads, folder)
    if spec is not None:
        require_parts(own_spec, spec, folder)
        embedder = embedder.with_spec(spec)
    require_lengths(embedder)
    return embedder


def _load_heads(heads: nn.ModuleDict, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    try:
        heads.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(folder / HEADS)) from error


def folder_heads(folder: Path) -> tuple[str, ...]:
    """Return the heads that a model folder has weights for, ours or third-party."""
    card = read_json(folder / CARD)
    if card:
        return tuple(card["heads"])
    return ("dense", "lexical", "multi_vector") if third_party_heads(folder) else ("dense",)


def spec_from_config(
    model: ModelConfig, prompts: PromptTable | None = None, before: EmbedderSpec | None = None
) -> EmbedderSpec:
    """Make the spec that a run's configuration describes.

    Args:
        model: may lack settings that a step does not read.
        prompts: None where the step does not read them.
        before: the model's spec so far; it keeps what is not given.
    """
    given = {name: getattr(model, name) for name in _SPEC_FIELDS if hasattr(model, name)}
    given |= {name: tuple(given[name]) for name in ("heads", "dims") if name in given}
    if prompts is not None:
        given["prompts"] = prompts
    return replace(before or EmbedderSpec(), **given)

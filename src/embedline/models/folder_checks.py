"""Checks that the parts of a model folder fit each other and the requested spec."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from embedline.errors import InputError
from embedline.models.bidirectional import (
    is_bidirectional,
    is_decoder_family,
    make_bidirectional,
    require_bidirectional,
)
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.third_party import ST_POOLINGS

_PROBE = ["Ёлка, ёж и 12345 №7!\nThe  printer’s end"]


def is_native(config: PretrainedConfig) -> bool:
    """Return whether the architecture's code is transformers' own, not its folder's."""
    return type(config).__module__.startswith("transformers.")


def needs_own_class(embedder: Embedder) -> bool:
    """Return whether transformers' own classes give other vectors: another pooling or rotary positions."""
    return embedder.spec.pooling not in ST_POOLINGS or has_dynamic_ntk(embedder.backbone.config)


def brings_code(embedder: Embedder) -> bool:
    """Return whether the saved folder holds model code, which loaders run only when it is trusted."""
    return needs_own_class(embedder) or not is_native(embedder.backbone.config)


def require_same_tokenizer(embedder: Embedder) -> None:
    """Refuse a tokenizer that AutoTokenizer does not load as it was saved.

    For some architectures (qwen2) it builds the family's own class from any vocabulary that it finds, and
    texts are then cut differently wherever the model is loaded.

    Raises:
        InputError: naming model.architecture.
    """
    tokenizer, config = embedder.tokenizer, embedder.backbone.config
    if needs_own_class(embedder) or not is_native(config):
        return  # AutoTokenizer has no class for the model_type of such a folder
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if again(_PROBE)["input_ids"] != tokenizer(_PROBE)["input_ids"]:
        raise InputError(
            f"transformers loads {config.model_type} with a {type(again).__name__}, whatever is saved.",
            where="model.architecture",
            fix="Train another architecture from scratch, such as llama or qwen3, or start from a base.",
        )


def require_tokenizer(tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, folder: Path) -> None:
    """Refuse a tokenizer without a pad token or of another vocabulary than the model's embeddings.

    A table may have spare rows; one that is more than twice as long belongs to another tokenizer.

    The tokenizer is set to pad and cut on the right, as `Embedder` does.

    Raises:
        InputError: naming the file and its key.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            "the tokenizer has no pad token, and batches need one.",
            where=f"{folder / 'tokenizer_config.json'}: pad_token",
            fix=f"Name one there, for instance {tokenizer.eos_token or '[PAD]'!r}.",
        )
    rows = _embedded_tokens(backbone, folder)
    if not rows / 2 <= len(tokenizer) <= rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}: they do not match.",
            where=f"{folder / 'config.json'}: vocab_size",
            fix="Put the tokenizer that the model was trained with beside its weights.",
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"


def _embedded_tokens(backbone: PreTrainedModel, folder: Path) -> int:
    try:
        return int(cast(nn.Embedding, backbone.get_input_embeddings()).weight.shape[0])
    except NotImplementedError as error:  # CANINE hashes characters
        raise InputError(
            f"{backbone.config.model_type} has no table of token embeddings.",
            where=str(folder),
            fix="Give a model with a vocabulary of tokens.",
        ) from error


def require_fast_tokenizer(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Refuse a tokenizer written in Python (PhoBERT, ByT5, Japanese BERT): training, saving and ONNX need the
    form of the tokenizers library.

    Raises:
        InputError: naming `where`.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"its tokenizer {type(tokenizer).__name__} exists in Python only; training, saving and export "
            "need a tokenizer.json.",
            where=where,
            fix="Start from a base that has one. As a teacher and in `evaluate` this model can be used.",
        )


def require_decoder_bidirectional(backbone: PreTrainedModel, folder: Path) -> None:
    """Refuse a decoder that Embedline saved and that is causal.

    Raises:
        InputError: naming the folder.
    """
    if not is_native(backbone.config) or is_decoder_family(backbone.config):  # else it cannot be causal
        require_bidirectional(backbone, str(folder))


def set_mask(backbone: PreTrainedModel, causal: bool | None, folder: Path) -> None:
    """Make a third-party backbone causal or bidirectional; None leaves the mask that it was loaded with.

    Raises:
        InputError: the architecture cannot have this mask.
    """
    if causal is False and (is_decoder_family(backbone.config) or not is_native(backbone.config)):
        make_bidirectional(backbone, str(folder))
    elif causal:
        backbone.config.is_causal = True
        if is_bidirectional(backbone):
            raise InputError(f"{backbone.config.model_type} has no causal mask.", where=str(folder))


def require_parts(has: EmbedderSpec, requested: EmbedderSpec, folder: Path) -> None:
    """Refuse a spec with heads, Dense layers or latent attention that the folder has no weights for.

    Raises:
        InputError: naming the setting.
    """
    lacking = [head for head in requested.heads if head not in has.heads]
    if lacking:
        raise InputError(
            f"{folder} has no {lacking[0]} head.", where="model.heads", fix=f"It has {', '.join(has.heads)}."
        )
    if requested.pooling == "latent" and has.pooling != "latent":
        raise InputError(
            f"{folder} has no latent attention.", where="model.pooling", fix=f"It pools by {has.pooling}."
        )
    if requested.pooling == "latent" and has.latent != requested.latent:
        raise InputError(f"{folder} has {has.latent}.", where="model.latent")
    if requested.dense_layers != has.dense_layers:
        raise InputError(
            f"has {len(has.dense_layers)} Dense layers, not those of the spec.", where=str(folder)
        )
    if "multi_vector" in requested.heads and has.multi_vector_width != requested.multi_vector_width:
        raise InputError(f"{folder} has {has.multi_vector_width}.", where="model.multi_vector_width")

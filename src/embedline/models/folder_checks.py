"""Checks that the parts of a model folder fit each other and the requested spec."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedline.errors import InputError, first_line
from embedline.models.bidirectional import is_decoder_family, make_bidirectional, require_bidirectional
from embedline.models.card import CARD, HEADS, read_json
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.third_party import ST_POOLINGS

_PROBE = ["Ёлка, ёж и 12345 №7!\nThe  printer’s end"]


def require_files(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a folder without config or safetensors weights, or with model code that may not run.

    Raises:
        InputError: naming the folder or the file.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise InputError("is not a model folder: it has no config.json.", where=str(folder))
    if not any(path.name != HEADS for path in folder.glob("*.safetensors")):
        raise InputError("has no safetensors weights; pickled weights are not loaded.", where=str(folder))
    try:
        values = read_json(config)
    except ValueError as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(config)) from error
    if values.get("model_type") == EmbedlineConfig.model_type:
        values = values["backbone"]
    architecture = values.get("model_type")
    if values.get("auto_map") and architecture not in CONFIG_MAPPING and not trust_remote_code:
        raise InputError(
            f"brings its own code for the architecture {architecture!r}, which runs only when it is trusted.",
            where=str(folder),
            fix="Read the code, then set model.trust_remote_code to true.",
        )


def is_native(config: PretrainedConfig) -> bool:
    """Return whether the architecture's code is transformers' own, not its folder's."""
    return type(config).__module__.startswith("transformers.")


def needs_own_class(embedder: Embedder) -> bool:
    """Return whether transformers' own classes give other vectors: another pooling or rotary positions."""
    return embedder.spec.pooling not in ST_POOLINGS or has_dynamic_ntk(embedder.backbone.config)


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
    """Refuse a tokenizer without a pad token or with more tokens than the model embeds.

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
    rows = int(cast(nn.Embedding, backbone.get_input_embeddings()).weight.shape[0])
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}: they do not match.",
            where=f"{folder / 'config.json'}: vocab_size",
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"


def make_decoder_bidirectional(backbone: PreTrainedModel, folder: Path) -> None:
    """Require a decoder saved by Embedline to be bidirectional, and make a bare language model so.

    A third-party embedding model that was trained causal (it has sentence-transformers' files) stays causal,
    as its vectors were made: it serves as a teacher or for comparison. As a base of a training it becomes
    bidirectional in `prepare_backbone`.

    Raises:
        InputError: the architecture, or a model that Embedline saved, is causal.
    """
    if is_native(backbone.config) and not is_decoder_family(backbone.config):
        return  # an architecture with its own code goes on: its family is unknown
    if (folder / CARD).is_file():
        require_bidirectional(backbone, str(folder))
    elif not (folder / "modules.json").is_file():
        make_bidirectional(backbone)


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

"""Whether the parts of a model folder fit each other, and what is asked of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedline.config.model import row_tokens
from embedline.errors import InputError
from embedline.models.bidirectional import is_decoder_family, make_bidirectional, require_bidirectional
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.modeling_embedline import EmbedlineConfig
from embedline.models.pooling import POOLING
from embedline.models.positions import require_room
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.third_party import read_json

CARD = "embedline.json"
HEADS = "heads.safetensors"
_PROBE = ["Ёлка, ёж и 12345 №7!\nThe  printer’s end"]


def require_files(folder: Path, trust_remote_code: bool) -> None:
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
    kind = values.get("model_type")
    if values.get("auto_map") and kind not in CONFIG_MAPPING and not trust_remote_code:
        raise InputError(
            f"brings its own code for the architecture {kind!r}, which is not run unasked.",
            where=str(folder),
            fix="Read the code, then set model.trust_remote_code to true.",
        )


def is_native(config: PretrainedConfig) -> bool:
    """Whether the architecture's code is transformers' own, not its folder's."""
    return type(config).__module__.startswith("transformers.")


def needs_own_class(embedder: Embedder) -> bool:
    """Whether transformers' own classes would give other vectors: another pooling, other rotary positions."""
    return embedder.spec.pooling not in POOLING or has_dynamic_ntk(embedder.backbone.config)


def require_same_tokenizer(embedder: Embedder) -> None:
    """Refuse a tokenizer that AutoTokenizer will not give back.

    For some architectures (qwen2) it builds the family's own class from whatever vocabulary it finds, and
    texts are then cut differently wherever the model is loaded.
    """
    tokenizer, config = embedder.tokenizer, embedder.backbone.config
    if needs_own_class(embedder) or not is_native(config):
        return  # the folder's model_type is none that AutoTokenizer knows
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if again(_PROBE)["input_ids"] != tokenizer(_PROBE)["input_ids"]:
        raise InputError(
            f"transformers loads {config.model_type} with a {type(again).__name__} whatever is saved.",
            where="model.architecture",
            fix="Train another architecture from scratch, such as llama or qwen3, or start from a base.",
        )


def require_tokenizer(tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel, folder: Path) -> None:
    if tokenizer.pad_token_id is None:
        raise InputError(
            "the tokenizer has no pad token, and batches need one.",
            where=f"{folder / 'tokenizer_config.json'}: pad_token",
            fix=f"Name one there, for instance {tokenizer.eos_token or '[PAD]'!r}.",
        )
    rows = int(cast(nn.Embedding, backbone.get_input_embeddings()).weight.shape[0])
    if len(tokenizer) > rows:
        raise InputError(
            f"the tokenizer knows {len(tokenizer)} tokens, the model {rows}: they do not belong together.",
            where=f"{folder / 'config.json'}: vocab_size",
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # as Embedder cuts and pads


def look_both_ways(backbone: PreTrainedModel, folder: Path) -> None:
    """Decoders see both ways: ours already do, a bare language model is made to.

    An embedding model of others that was trained causal (it has sentence-transformers' files) stays as its
    vectors were made, to be a teacher or a rival; as a base it is turned when training prepares it.
    """
    if is_native(backbone.config) and not is_decoder_family(backbone.config):
        return  # of an architecture with its own code, nobody knows
    if (folder / CARD).is_file():
        require_bidirectional(backbone, str(folder))
    elif not (folder / "modules.json").is_file():
        make_bidirectional(backbone)


def require_parts(has: EmbedderSpec, wanted: EmbedderSpec, folder: Path) -> None:
    lacking = [head for head in wanted.heads if head not in has.heads]
    if lacking:
        raise InputError(
            f"{folder} has no {lacking[0]} head.", where="model.heads", fix=f"It has {', '.join(has.heads)}."
        )
    if wanted.pooling == "latent" and has.pooling != "latent":
        raise InputError(
            f"{folder} has no latent attention.", where="model.pooling", fix=f"It pools by {has.pooling}."
        )
    if wanted.pooling == "latent" and has.latent != wanted.latent:
        raise InputError(f"{folder} has {has.latent}.", where="model.latent")
    if "multi_vector" in wanted.heads and has.multi_vector_width != wanted.multi_vector_width:
        raise InputError(f"{folder} has {has.multi_vector_width}.", where="model.multi_vector_width")


def require_lengths(embedder: Embedder) -> None:
    """Refuse lengths beyond the backbone's positions, MCLS' own tokens included.

    Raises:
        InputError: naming model.query_length or model.document_length.
    """
    spec = embedder.spec
    for name in ("query_length", "document_length"):
        require_tokens(embedder, getattr(spec, name), f"model.{name}")


def require_tokens(embedder: Embedder, tokens: int | None, where: str) -> None:
    """Refuse texts of so many tokens when the model has no positions for them, MCLS' own tokens included."""
    if tokens is not None:
        spec = embedder.spec
        require_room(embedder.backbone, row_tokens(tokens, spec.pooling, spec.mcls_every), where)


def first_line(error: Exception) -> str:
    """Enough of another library's error to act on."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

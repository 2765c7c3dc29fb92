"""The parts that transformers loads from a model folder: config, tokenizer and backbone; and the heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from embedline.errors import InputError, first_line
from embedline.models.attention import Attention
from embedline.models.model_files import HEADS, read_json
from embedline.models.modeling_embedline import EmbedlineConfig, EmbedlineModel, auto_class
from embedline.models.stated import Stated
from embedline.models.third_party import third_party_heads
from embedline.models.vector_rule import VectorRule, read_vector_rule

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "*.vocab")
_LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


class Parts(NamedTuple):
    """The loaded parts; `own`: the model is an `EmbedlineModel`."""

    own: bool
    config: PretrainedConfig
    model: Any
    tokenizer: PreTrainedTokenizerBase
    heads: dict[str, torch.Tensor]
    lacks_pooler: bool

    @property
    def backbone(self) -> PreTrainedModel:
        """The transformer; of a model that also takes images (Gemma 3) its text part.

        Raises:
            InputError: there is no text part to take.
        """
        model: PreTrainedModel = self.model.backbone if self.own else self.model
        if model.config.get_text_config() is model.config:
            return model
        part = getattr(model, "language_model", None)
        if not isinstance(part, PreTrainedModel):
            raise InputError(
                f"{model.config.model_type} has a text_config, but no language_model to take from it.",
                where=str(model.config.name_or_path),
            )
        return part

    def vector_rule(self, folder: Path, stated: Stated, *, as_base: bool) -> VectorRule:
        """Find out how the vectors are made: `read_vector_rule` of the whole model's folder."""
        default = self.config.pooling if self.own else "cls" if self.heads else None  # BGE-M3's heads
        return read_vector_rule(folder, self.backbone.config, stated, default=default, as_base=as_base)


def load_parts(
    folder: Path,
    *,
    attention: str = "auto",
    kernel: Attention = "sdpa",
    trust_remote_code: bool = False,
    weights: bool = True,
) -> Parts:
    """Load the parts of a folder that `require_files` accepted.

    Args:
        folder: of config, tokenizer and weights (`transformer_folder`).
        attention, kernel: the setting, and the kernel that it means here.
        weights: False reads only their names and shapes: the model is on torch's device "meta".

    Raises:
        InputError: a part is missing, damaged, or of another architecture.
    """
    # Its report of missing weights and its progress bars: what matters of them is checked below.
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    place: dict[str, Any] = {} if weights else {"device_map": "meta"}
    try:
        own = read_json(folder / "config.json").get("model_type") == EmbedlineConfig.model_type
        config_class: Any = EmbedlineConfig if own else AutoConfig
        config = config_class.from_pretrained(folder, **local)
        tokenizer = _load_tokenizer(folder, config, local)
        model_class: Any = EmbedlineModel if own else auto_class(config)
        model, loading = model_class.from_pretrained(
            folder,
            use_safetensors=True,
            attn_implementation=_flash(attention, kernel, config.backbone if own else config),
            output_loading_info=True,
            **local,
            **place,
        )
        heads = load_file(folder / HEADS) if (folder / HEADS).is_file() else third_party_heads(folder)
    except _LOADING_ERRORS as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(folder)) from error
    missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key.split("."))
    if missing:  # transformers would go on with random ones
        raise InputError(f"lacks {len(missing)} weights, {missing[0]} first.", where=str(folder))
    return Parts(own, config, model, tokenizer, heads, lacks_pooler=bool(loading["missing_keys"]))


def _load_tokenizer(folder: Path, config: PretrainedConfig, local: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load the tokenizer; without its files transformers would make one with the special tokens only.

    Raises:
        InputError: there is no vocabulary, or the tokenizer's class cannot be made here.
    """
    name = _tokenizer_class(folder, config)
    needs_file = getattr(getattr(transformers, name, None), "vocab_files_names", None) != {}  # ByT5, CANINE
    if needs_file and not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise InputError(
            "has no tokenizer: no tokenizer.json, nor another vocabulary file.",
            where=str(folder),
            fix="Copy the tokenizer's files beside the weights, or save it there: "
            "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER).",
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, config=config, **local)
    except (*_LOADING_ERRORS, TypeError, AttributeError) as error:  # of a file that its class needs
        raise InputError(
            f"its tokenizer {name} cannot be loaded ({first_line(error)}).",
            where=str(folder),
            fix="Complete its files, or install the package that it names.",
        ) from error
    return tokenizer


def _tokenizer_class(folder: Path, config: PretrainedConfig) -> str:
    try:
        stated = read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    except json.JSONDecodeError as error:
        raise InputError(
            f"cannot be loaded ({first_line(error)}).", where=str(folder / "tokenizer_config.json")
        ) from error
    known = stated or getattr(config, "tokenizer_class", None)
    return str(known or TOKENIZER_MAPPING_NAMES.get(config.model_type, "of its own"))


def _flash(attention: str, kernel: Attention, config: PretrainedConfig) -> str | None:
    """Return the kernel to load with where it is flash attention; other kernels are set after loading."""
    model_class = auto_class(config)._model_mapping.get(type(config), None)
    lacks_it = attention == "auto" and not getattr(model_class, "_supports_flash_attn", True)
    return None if kernel != "flash_attention_2" or lacks_it else kernel

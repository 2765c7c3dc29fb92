"""The sizes of a backbone from its configuration alone: no weights, and torch only for missing defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedline.config.model import ModelConfig
from embedline.models.layer_work import PLAIN
from embedline.models.st_modules import module_config, read_modules, transformer_folder

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# Of the architectures that are often made from scratch; loading transformers takes seconds.
_DEFAULTS: dict[str, dict[str, int]] = {
    "modernbert": {
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
    },
    "nomic_bert": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "type_vocab_size": 2,
    },
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a transformer.

    Args:
        inner: width of the feed-forward part.
        head: width of an attention head; `groups` is the number of key-value heads.
        tables: rows of learned tables beside the vocabulary (positions, segments).
        plain: BERT's kind of layer (two matrices, biases), else a gated one (three matrices).
    """

    layers: int
    width: int
    inner: int
    heads: int
    groups: int
    head: int
    vocabulary: int
    tables: int = 0
    plain: bool = False

    @property
    def layer(self) -> int:
        """Weights of one layer's matrices."""
        attention = 2 * self.width * self.head * (self.heads + self.groups)
        return attention + (2 if self.plain else 3) * self.width * self.inner

    @property
    def matrices(self) -> int:
        """Number of weights in all layers' matrices, without tables: N of the cost formulas."""
        return self.layers * self.layer

    @property
    def parameters(self) -> int:
        """Number of all trained weights, tables included."""
        small = 2 * self.width
        if self.plain:
            small += 2 * self.width + self.head * (self.heads + 2 * self.groups) + 2 * self.width + self.inner
        pooler = self.width * (self.width + 1) if self.plain else 0
        tables = (self.vocabulary + self.tables) * self.width
        return tables + self.layers * (self.layer + small) + pooler + 2 * self.width

    def with_layers(self, layers: int) -> Sizes:
        return replace(self, layers=layers)


def backbone_sizes(model: ModelConfig, base: Path | None) -> Sizes | None:
    """Return the sizes of the run's backbone; None when they are not known here.

    Args:
        base: folder of model.base on this machine. Without it, `model.settings` are used: those of a model
            from scratch, or the expected values of the base's config.json.
    """
    if base is not None and (config := transformer_folder(base) / "config.json").is_file():
        values = json.loads(config.read_text(encoding="utf-8"))
        return sizes_from(values.get("text_config", values))
    values = {"model_type": model.architecture, **model.settings}
    if model.base is None:
        if model.architecture in _DEFAULTS or not all(key in values for key in _NEEDED):
            values = {**(_DEFAULTS.get(model.architecture) or _defaults(model.architecture)), **values}
        values["vocab_size"] = model.vocabulary
    if model.positions is not None:
        values["max_position_embeddings"] = model.positions
    return sizes_from(values)


def vector_width(model: ModelConfig, base: Path) -> int | None:
    """Return the width of the base's vectors: that of its last Dense module, or of its backbone."""
    dense = [module for module in read_modules(base) if module.kind == "Dense"]
    if dense:
        return int(module_config(base, dense[-1])["out_features"])
    sizes = backbone_sizes(model, base)
    return None if sizes is None else sizes.width


def sizes_from(values: Mapping[str, Any]) -> Sizes | None:
    """Read sizes from a transformers configuration; None for a mixture of experts or a missing size."""
    if not all(values.get(key) for key in (*_NEEDED, "vocab_size")) or any(values.get(k) for k in _EXPERTS):
        return None
    plain = values.get("model_type") in PLAIN
    width, heads = values["hidden_size"], values["num_attention_heads"]
    tables = values.get("type_vocab_size") or 0
    if plain:
        tables += values.get("max_position_embeddings") or 0
    return Sizes(
        layers=values["num_hidden_layers"],
        width=width,
        inner=values["intermediate_size"],
        heads=heads,
        groups=values.get("num_key_value_heads") or heads,
        head=values.get("head_dim") or width // heads,
        vocabulary=values["vocab_size"],
        tables=tables,
        plain=plain,
    )


def _defaults(architecture: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.for_model(architecture).to_dict()
    except ValueError:  # no such architecture: the run itself reports it
        return {}
    return found

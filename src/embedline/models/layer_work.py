"""The work of one layer of a model on one chunk of tokens: what a machine's speed is measured with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embedline.models.st_modules import transformer_folder

# BERT's kind: two matrices in the feed-forward part, biases everywhere, learned positions, a pooler.
PLAIN = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta-v2"}
_ENCODED_TOKENS, _ENCODED_LENGTH = 8192, 128  # of a batch (Embedder.encode), and about of a document
_MOST_OPERATIONS = 8e9  # of a measurement: a tenth of a second of a core
_LEAST_TOKENS = 128
_DEFAULT_WIDTH, _HEAD = 768, 64  # of configurations that do not state them


class LayerWork(NamedTuple):
    """`texts` texts of `length` tokens through one layer.

    Args:
        inner: width of the feed-forward part, which has three matrices where it is `gated`, else two.
        training: forward and backward; else forward alone.
    """

    width: int
    inner: int
    heads: int
    gated: bool
    texts: int
    length: int
    training: bool

    @property
    def tokens(self) -> int:
        return self.texts * self.length

    @property
    def operations(self) -> float:
        """Multiplications and additions: 2 a weight and token, 4 T a width for attention, thrice to train."""
        return (3 if self.training else 1) * self.tokens * _forward(self)

    def describe(self) -> str:
        """Return `384 × 1536, 6 heads, 2048 tokens in texts of 128, training`."""
        return (
            f"{self.width} × {self.inner}{' gated' if self.gated else ''}, {self.heads} heads, {self.tokens} "
            f"tokens in texts of {self.length}, {'training' if self.training else 'encoding'}"
        )


def training_work(values: Mapping[str, Any], *, tokens: int, length: int) -> LayerWork:
    """Return the work of a training's chunk of at most `tokens` tokens, as much of it as is quick to measure.

    Lengths and numbers of texts are rounded to powers of two, so that few works are measured.

    Args:
        values: a transformers configuration; widths that it does not state are BERT's.
        tokens: of one chunk.
        length: of a text.
    """
    return _layer_work(values, tokens, length, training=True)


def encoding_work(values: Mapping[str, Any]) -> LayerWork:
    """Return the work of a batch that is encoded: of documents, whose length matters little here."""
    return _layer_work(values, _ENCODED_TOKENS, _ENCODED_LENGTH, training=False)


def folder_config(folder: Path) -> dict[str, Any]:
    """Read the transformers configuration of the model in a folder; empty where it has none."""
    try:
        found = json.loads((transformer_folder(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _layer_work(values: Mapping[str, Any], tokens: int, length: int, *, training: bool) -> LayerWork:
    values = values.get("text_config") or values
    width = int(values.get("hidden_size") or _DEFAULT_WIDTH)
    heads = int(values.get("num_attention_heads") or max(1, width // _HEAD))
    work = LayerWork(
        width=width,
        inner=int(values.get("intermediate_size") or 4 * width),
        heads=heads if width % heads == 0 else 1,
        gated=values.get("model_type") not in PLAIN,
        texts=1,
        length=_power_of_two(length),
        training=training,
    )
    most = min(tokens, max(_LEAST_TOKENS, _MOST_OPERATIONS / (work.operations / work.tokens)))
    return work._replace(texts=_power_of_two(most / work.length))


def _forward(work: LayerWork) -> float:
    matrices = 4 * work.width**2 + (3 if work.gated else 2) * work.width * work.inner
    return 2 * matrices + 4 * work.length * work.width


def _power_of_two(count: float) -> int:
    """Return the largest power of two that is not above `count`, at least 1."""
    return 1 << max(0, int(count).bit_length() - 1)

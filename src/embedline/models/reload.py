"""Checks that a saved model gives the vectors of the one in memory.

Whatever changes a model's structure must be stored in config.json. An architecture that does not store it, or
reads it in another way, would load as another model without a word.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from embedline.errors import InputError, first_line
from embedline.models.bidirectional import evaluating
from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import has_dynamic_ntk

_LENGTHS = (40, 7)  # tokens; the shorter row is padded
# The same weights change nothing, but for constants that were rounded with a 16-bit base (Gemma's scale).
_MIN_COSINE = 0.999
_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError),
    *(StrictDataclassError, InputError),
)


def require_described(embedder: Embedder, where: str, fix: str) -> None:
    """Refuse a model whose config, written and read again, describes another model on the same weights.

    It takes no memory for weights: they are shared.

    Args:
        where, fix: the setting that changed the model, named in the error, and what to do.

    Raises:
        InputError: the config cannot be read again, or gives other vectors.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # a check must not advance the random state of what follows
            other = embedder.with_backbone(_built_from_config(embedder.backbone))
        _require_same_vectors(embedder, other)
    except _ERRORS as error:
        raise _not_the_same(embedder, error, where, fix) from error


def require_same_after_reload(
    embedder: Embedder, folder: Path, where: str, fix: str, *, trust_remote_code: bool = False
) -> None:
    """Refuse a folder that loads as another model than `embedder`, which was saved there.

    Raises:
        InputError: the folder does not load, or gives other vectors.
    """
    try:
        other = load_embedder(folder, trust_remote_code=trust_remote_code).to(embedder.device)
        other.backbone.set_attn_implementation(embedder.backbone.config._attn_implementation)
        _require_same_vectors(embedder, other)
    except _ERRORS as error:
        raise _not_the_same(embedder, error, where, fix) from error


def _built_from_config(backbone: PreTrainedModel) -> PreTrainedModel:
    """Build the model that its config.json describes, on the weights of `backbone`."""
    with TemporaryDirectory() as folder:
        backbone.config.save_pretrained(folder)
        config = type(backbone.config).from_pretrained(folder)
    kind: Any = type(backbone)
    with init_empty_weights(include_buffers=False):
        built: Any = kind._from_config(
            config, attn_implementation=backbone.config._attn_implementation, dtype=backbone.dtype
        )
    if getattr(backbone, "pooler", built) is None:
        built.pooler = None
    built.load_state_dict(backbone.state_dict(), assign=True)
    built.to(backbone.device)
    if has_dynamic_ntk(built.config):
        apply_dynamic_ntk(built)
    rebuilt: PreTrainedModel = built
    return rebuilt


@torch.no_grad()
def _require_same_vectors(embedder: Embedder, other: Embedder) -> None:
    tokens = len(embedder.tokenizer)
    length = min(_LENGTHS[0], embedder.spec.document_length)
    rows = [[(tokens // 2 + 3 * i) % tokens for i in range(n)] for n in (length, min(_LENGTHS[1], length))]
    with evaluating(embedder.backbone), evaluating(other.backbone):
        expected, found = (F.normalize(m(**m.pad(rows)).float(), dim=-1) for m in (embedder, other))
    cosine = float((expected * found).sum(-1).min())
    if cosine < _MIN_COSINE:  # NaN is reported where vectors are made
        raise ValueError(f"its vectors have a cosine of {cosine:.4f} to those before")


def _not_the_same(embedder: Embedder, error: Exception, where: str, fix: str) -> InputError:
    reason = error.what.rstrip(".") if isinstance(error, InputError) else first_line(error)
    return InputError(
        f"{embedder.backbone.config.model_type} would be another model after it is saved ({reason}).",
        where=where,
        fix=fix,
    )

"""The check that texts of a given length fit the positions of a model."""

from __future__ import annotations

from embedline.config.model import row_tokens
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.positions import require_positions


def require_lengths(embedder: Embedder) -> None:
    """Refuse lengths beyond the backbone's positions; the CLS tokens that MCLS inserts count.

    Raises:
        InputError: naming model.query_length or model.document_length.
    """
    spec = embedder.spec
    for name in ("query_length", "document_length"):
        require_tokens(embedder, getattr(spec, name), f"model.{name}")


def require_dims(embedder: Embedder) -> None:
    """Refuse Matryoshka dims beyond the model's width.

    Raises:
        InputError: naming model.dims.
    """
    for dim in embedder.spec.dims:
        if dim > embedder.width:
            raise InputError(f"{dim} is larger than the model's width {embedder.width}.", where="model.dims")


def require_tokens(embedder: Embedder, tokens: int | None, where: str) -> None:
    """Refuse texts of `tokens` tokens beyond the backbone's positions; None passes.

    Args:
        where: the setting of this length, named in the error.

    Raises:
        InputError: the model has fewer positions; the CLS tokens that MCLS inserts count.
    """
    if tokens is not None:
        spec = embedder.spec
        require_positions(embedder.backbone, row_tokens(tokens, spec.pooling, spec.mcls_every), where)

"""The check before a run that its Matryoshka dims are no wider than the base model."""

from __future__ import annotations

from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.planning.model_size import vector_width


def require_dims(config: RunConfig, base: Path | None) -> None:
    """Refuse a dim beyond the width of the base's vectors, as its configs name it.

    Raises:
        InputError: naming model.dims.
    """
    width = vector_width(config.model, base) if base is not None and config.model.dims else None
    if width is not None and max(config.model.dims) > width:
        raise InputError(
            f"{max(config.model.dims)} is larger than the base's width {width}.",
            where="model.dims",
            fix="Lower it, or leave it out: the full width is always one of the dims.",
        )

"""The base class of all configuration sections, and a look into the sections of a field's type."""

from __future__ import annotations

import types
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A strict and frozen section: no unknown keys, no silent conversions, no change after validation.

    Numbers are finite: every comparison with NaN is false, so a NaN bar would make the gate refuse any model.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section inside a field's type: itself, an item's, or one of a union; None without one."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((model for model in map(section_in, get_args(annotation)) if model), None)

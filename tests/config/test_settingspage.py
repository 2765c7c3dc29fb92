"""The page of settings, and the descriptions in the schema that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from embedline.config.base import section_in
from embedline.config.schema import RunConfig
from embedline.config.settingspage import markdown

PAGE = Path(__file__).parents[2] / "pipelines" / "retrain" / "presets" / "SETTINGS.md"


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None:
            yield f"{path}{name}", field
        else:
            yield from leaves(inner, f"{path}{name}.")


@pytest.mark.parametrize(("key", "field"), leaves(RunConfig))
def test_every_setting_has_a_description_on_the_page(key: str, field: FieldInfo) -> None:
    assert field.description, key
    name = key.rsplit(".", 1)[-1]
    assert f"{name}` |" in PAGE.read_text(encoding="utf-8")


def test_the_page_is_generated_from_the_schema() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == markdown(), "python -m embedline.config.settingspage > …/presets/SETTINGS.md"
    assert "| `margin` | number, > 0, ≤ 1 | `0.95` | keep a candidate whose score" in written
    assert "| `sources[].path` | text | **needed** |" in written


def test_no_description_begins_with_of() -> None:
    """A description must make sense without the key beside it: "name of the job", not "of the job"."""
    offenders = [key for key, field in leaves(RunConfig) if (field.description or "").startswith("of ")]
    assert offenders == []

"""The page of settings says all that the schema knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from embedline.config.load import _model_in
from embedline.config.schema import RunConfig
from embedline.config.settingspage import markdown

PAGE = Path(__file__).parents[2] / "pipelines" / "retrain" / "presets" / "SETTINGS.md"


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None:
            yield f"{path}{name}", field
        else:
            yield from leaves(inner, f"{path}{name}.")


@pytest.mark.parametrize(("key", "field"), leaves(RunConfig))
def test_every_setting_says_what_it_is(key: str, field: FieldInfo) -> None:
    assert field.description, key
    name = key.rsplit(".", 1)[-1]
    assert f"{name}` |" in PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_schema_says() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == markdown(), "python -m embedline.config.settingspage > …/presets/SETTINGS.md"
    assert "| `margin` | number, > 0, ≤ 1 | `0.95` | keep a candidate below margin" in written
    assert "| `sources[].path` | text | **needed** |" in written

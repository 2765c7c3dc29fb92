"""Every setting as a page of documentation: `python -m embedline.config.settingspage` prints it."""

from __future__ import annotations

import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from embedline.config.schema import RunConfig

_HEAD = """\
# Settings

A preset is a YAML file of these sections; `-o section.key=value` sets one key, with YAML for the value and a
number for a place in a list: `-o data.sources.0.weight=2`. `extends: NAME` (or a path, from the file's own
folder) starts from another preset. `[]` stands for each item of a list, `NAME` for a name of your own. What
does not go together stands in [OPTIONS.md](OPTIONS.md).
This page is made by `python -m embedline.config.settingspage`.
"""
_BOUNDS = {
    "ge": "≥ {}",
    "gt": "> {}",
    "le": "≤ {}",
    "lt": "< {}",
    "min_length": "at least {}",
    "multiple_of": "a multiple of {}",
}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", types.NoneType: "nothing"}


def markdown() -> str:
    """The page."""
    parts = [_HEAD, "## The run\n", *_table(_plain(RunConfig))]
    sections: dict[type[BaseModel], list[str]] = {}
    for name, field in RunConfig.model_fields.items():
        if (model := _model_in(field.annotation)) and name != "prompts":
            sections.setdefault(model, []).append(name)
    for model, names in sections.items():
        parts += [f"\n## {', '.join(names)}\n", f"{_first_line(model)}\n", *_table(_rows(model, ""))]
    return "\n".join(parts) + "\n"


def _plain(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """What is no section of its own: single values, and the prompts."""
    for name, field in model.model_fields.items():
        if _model_in(field.annotation) is None or name == "prompts":
            yield from _rows_of(name, field)


def _rows(model: type[BaseModel], before: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield from _rows_of(f"{before}{name}", field)


def _rows_of(key: str, field: FieldInfo) -> Iterator[tuple[str, FieldInfo]]:
    inner = _model_in(field.annotation)
    if inner is None or field.description:
        yield key, field
    if inner is not None:
        kind = _container(field.annotation)
        yield from _rows(inner, key + {list: "[].", dict: ".NAME."}.get(kind, "."))


def _table(rows: Iterator[tuple[str, FieldInfo]]) -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in rows:
        cells = (f"`{key}`", _type(field), _default(field), field.description or "")
        escaped = (cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in (None, "", [], {}):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: FieldInfo) -> str:
    bounds = [_bound(mark) for mark in field.metadata]
    return ", ".join([_words(field.annotation), *filter(None, bounds)])


def _bound(mark: Any) -> str:
    """A limit of a number or a length; nothing for marks that limit neither."""
    for name, text in _BOUNDS.items():
        if (limit := getattr(mark, name, None)) is not None:
            return text.format(limit)
    return ""


def _words(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin is typing.Annotated:
        bounds = [_bound(mark) for field in inside[1:] for mark in getattr(field, "metadata", [field])]
        return ", ".join([_words(inside[0]), *filter(None, bounds)])
    if origin in {types.UnionType, typing.Union}:
        return " or ".join(_words(one) for one in inside if one is not types.NoneType)
    if origin is list:
        return f"list of {_words(inside[0])}"
    if origin is dict:
        return f"mapping to {_words(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _NAMES.get(annotation, "anything")


def _container(annotation: Any) -> Any:
    """list or dict, where models are inside one."""
    found = {get_origin(one) for one in (annotation, *get_args(annotation))} & {list, dict}
    return next(iter(found), None)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((model for model in map(_model_in, get_args(annotation)) if model), None)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.stdout.write(markdown())

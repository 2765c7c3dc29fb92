"""The settings that a step reads: chosen from a config, and read back with the schema's types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

Fields = Mapping[str, tuple[str, ...]]


def choose(values: Mapping[str, Any], sections: Fields) -> dict[str, Any]:
    """Return the chosen settings of a config.

    Args:
        values: a whole config, as JSON values.
        sections: section (`model`, `data.sources`) → its fields; all of them when there are none.
    """
    return {section: _fields(look_up(values, section), names) for section, names in sections.items()}


def drop(values: Any, path: str) -> Any:
    """Return `values` without the setting at a dotted path; lists are entered item by item."""
    name, _, rest = path.partition(".")
    if isinstance(values, list):
        return [drop(item, path) for item in values]
    if not isinstance(values, dict) or name not in values:
        return values
    if rest:
        return {**values, name: drop(values[name], rest)}
    return {key: value for key, value in values.items() if key != name}


def look_up(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; None where a section on the way is None."""
    found: Any = values
    for name in path.split("."):
        if found is None:
            return None
        found = found[name]
    return found


def holds(values: Mapping[str, Any], condition: str) -> bool:
    """Return whether a config meets a condition: `setting` is on, `setting=value`, or `not setting`.

    Several conditions, joined by ` or `, are met when one is.
    """
    if " or " in condition:
        return any(holds(values, one) for one in condition.split(" or "))
    if condition.startswith("not "):
        return not look_up(values, condition.removeprefix("not "))
    path, _, wanted = condition.partition("=")
    found = look_up(values, path)
    return found == wanted if wanted else bool(found)


def merge(one: Any, other: Any) -> Any:
    """Return the settings of both, where both are dicts or lists of dicts."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: merge(one.get(key), value) for key, value in other.items()}}
    if isinstance(one, list) and isinstance(other, list):
        return [merge(first, second) for first, second in zip(one, other, strict=True)]
    return other if one is None else one


def build(annotation: Any, value: Any) -> Any:
    """Return `value` as the schema types it; a setting that it lacks is absent, not at its default.

    A step that reads a setting which its key does not hold fails with an AttributeError that names it.
    """
    section = _section_type(annotation)
    if section is not None and isinstance(value, Mapping):
        fields = section.model_fields
        given = {name: build(fields[name].annotation, value[name]) for name in fields if name in value}
        made = section.model_construct(**given)
        for name in fields.keys() - given.keys():
            made.__dict__.pop(name, None)
        return made
    if get_origin(annotation) is list and isinstance(value, list):
        return [build(get_args(annotation)[0], item) for item in value]
    return TypeAdapter(annotation).validate_python(value)


def _fields(value: Any, names: tuple[str, ...]) -> Any:
    if not names or value is None:
        return value
    if isinstance(value, list):
        return [_fields(item, names) for item in value]
    return {name: value[name] for name in names if name in value}


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of an annotation (`Section`, or `Section | None`)."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((kind for kind in map(_section_type, get_args(annotation)) if kind), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None

"""Valid requests of the pipelines API, from kfp_server_api's own models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kfp_server_api
from dateutil.parser import isoparse

# int64 travels as a string in protobuf's JSON; a number is accepted, too. The models only say "str".
INT64 = {"max_concurrency", "interval_second", "long_value"}
_PRIMITIVES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "object": dict,
}


def model(name: str) -> Any:
    return getattr(kfp_server_api, name)


def choices(name: str) -> list[str]:
    """Return the values of an enumeration; empty for other types."""
    found: list[str] = getattr(getattr(kfp_server_api, name, None), "allowable_values", [])
    return found


def fields(name: str) -> dict[str, str]:
    """Return JSON key → type of a model's fields."""
    made = model(name)
    return {made.attribute_map[attribute]: kind for attribute, kind in made.openapi_types.items()}


def is_output(name: str, field: str) -> bool:
    """Return whether only the server may set a field, by the model's documentation."""
    words = getattr(model(name), field).__doc__ or ""
    return bool(re.search(r"\bOutput( only)?\.", words))


def is_required(name: str, field: str) -> bool:
    return "Required input" in (getattr(model(name), field).__doc__ or "")


def problems(value: Any, kind: str, where: str) -> Iterator[str]:
    """Return all errors of `value` as a `kind` of the API."""
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: is not a list"
            return
        for number, item in enumerate(value):
            yield from problems(item, found[1], f"{where}[{number}]")
    elif found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{where}: is not an object"
            return
        for key, item in value.items():
            if found[1] != "object":  # object: any JSON value (google.protobuf.Value)
                yield from problems(item, found[1], f"{where}.{key}")
    elif kind == "datetime":
        if not isinstance(value, str) or not _is_time(value):
            yield f"{where}: is not a time"
    elif kind in _PRIMITIVES:
        yield from _primitive(value, kind, where)
    elif choices(kind):
        if value not in choices(kind):
            yield f"{where}: is none of {', '.join(choices(kind))}"
    else:
        yield from _object(value, kind, where)


def _primitive(value: Any, kind: str, where: str) -> Iterator[str]:
    if where.rpartition(".")[2] in INT64:
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            yield f"{where}: is not a whole number"
    elif not isinstance(value, _PRIMITIVES[kind]) or (isinstance(value, bool) and kind != "bool"):
        yield f"{where}: is not of type {kind}"


def _object(value: Any, kind: str, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: is not an object"
        return
    known = fields(kind)
    for key, item in value.items():
        if key not in known:
            yield f"{where}.{key}: unknown field"
        elif is_output(kind, key):
            yield f"{where}.{key}: is set by the server"
        elif item is not None:
            yield from problems(item, known[key], f"{where}.{key}")
    for key in known:
        if is_required(kind, key) and value.get(key) in (None, ""):
            yield f"{where}.{key}: is required"


def _is_time(value: str) -> bool:
    try:
        isoparse(value)
    except ValueError:
        return False
    return True

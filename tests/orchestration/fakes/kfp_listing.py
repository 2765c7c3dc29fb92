"""Listings of the pipelines API: filters, sorting, pages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import kfp_schema

# What the server can filter and sort each kind by.
_COMMON = {"display_name", "name", "created_at", "description", "namespace"}
FIELDS = {
    "experiments": _COMMON | {"experiment_id", "storage_state", "last_run_created_at"},
    "pipelines": _COMMON | {"pipeline_id"},
    "versions": _COMMON | {"pipeline_version_id", "pipeline_id"},
    "runs": _COMMON | {"run_id", "experiment_id", "state", "storage_state", "finished_at", "scheduled_at"},
    "recurring": _COMMON | {"recurring_run_id", "experiment_id", "status", "updated_at"},
}
OPERATIONS = ["", "EQUALS", "NOT_EQUALS", "GREATER_THAN", "", "GREATER_THAN_EQUALS", "LESS_THAN"]
OPERATIONS += ["LESS_THAN_EQUALS", "IN", "IS_SUBSTRING"]


class RefusedError(Exception):
    """A response other than 200, with its gRPC code."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def number(text: str, name: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 200:
        raise RefusedError(400, f"{name}: is not between 1 and 200")
    return int(text)


def sorting(collection: str, text: str) -> tuple[str, bool]:
    field, _, direction = text.partition(" ")
    if (field and field not in FIELDS[collection]) or direction not in {"", "asc", "desc"}:
        raise RefusedError(400, f"sort_by: {text!r} is not a field of {collection}, asc or desc")
    return field or "created_at", direction == "desc"


def matching(collection: str, text: str) -> Callable[[dict[str, Any]], bool]:
    try:
        given = _snake(json.loads(text)) if text else {}
    except ValueError as error:
        raise RefusedError(400, "filter: is not JSON") from error
    if wrong := list(kfp_schema.problems(given, "V2beta1Filter", "filter")):
        raise RefusedError(400, "; ".join(wrong))
    tests = [_predicate(collection, predicate) for predicate in given.get("predicates") or []]
    return lambda value: all(test(value) for test in tests)


def _predicate(collection: str, given: dict[str, Any]) -> Callable[[dict[str, Any]], bool]:
    key, operation = given.get("key"), given.get("operation")
    if key not in FIELDS[collection]:
        raise RefusedError(400, f"filter: {collection} cannot be filtered by {key!r}")
    values = [given[name] for name in given if name not in {"key", "operation"}]
    if len(values) != 1:
        raise RefusedError(400, "filter: a predicate has one value")
    wanted: Any = values[0]["values"] if isinstance(values[0], dict) else values[0]
    tests: dict[Any, Callable[[str], bool]] = {
        "EQUALS": lambda held: held == wanted,
        "NOT_EQUALS": lambda held: held != wanted,
        "IN": lambda held: held in wanted,
        "IS_SUBSTRING": lambda held: str(wanted) in held,
        "GREATER_THAN": lambda held: held > wanted,
        "GREATER_THAN_EQUALS": lambda held: held >= wanted,
        "LESS_THAN": lambda held: held < wanted,
        "LESS_THAN_EQUALS": lambda held: held <= wanted,
    }
    if operation not in tests:
        raise RefusedError(400, f"filter: {operation!r} is no operation")
    return lambda value: tests[operation](str(value.get(key, "")))


def _snake(value: Any) -> Any:
    """Normalize protobuf's JSON: stringValue for string_value, an enumeration's number for its name."""
    if isinstance(value, list):
        return [_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {re.sub(r"([A-Z])", r"_\1", key).lower(): _snake(item) for key, item in value.items()}
    number = made.get("operation")
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number < len(OPERATIONS):
        made["operation"] = OPERATIONS[number]
    return made


def write_token(offset: int, names: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([offset, names]).encode()).decode()


def read_token(text: str, names: dict[str, str]) -> int:
    if not text:
        return 0
    try:
        offset, asked = json.loads(base64.urlsafe_b64decode(text))
    except ValueError as error:
        raise RefusedError(400, "page_token: cannot be read") from error
    if asked != names:
        raise RefusedError(400, "page_token: belongs to another question")
    return int(offset)

"""Conversion of a source's row into a record or a passage, or the reason why that is impossible."""

from __future__ import annotations

import hashlib
import math
from typing import Any, get_args

from embedline.config.data import Columns, CorpusSource, Source, TaskType
from embedline.data.language import guess
from embedline.data.printed_lists import AmbiguousListError, is_printed_list, read_printed_list
from embedline.data.tables import Row

LONG_CHARS = 200
_TASK_TYPES = frozenset(get_args(TaskType))


class MalformedRowError(ValueError):
    """A row that cannot become a record; the message is the reason."""


class Ids:
    """A source of ids that depend on content alone; the second row of the same content gets `-2`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, *parts: str) -> str:
        digest = hashlib.sha1("\x1f".join(parts).encode(), usedforsecurity=False).hexdigest()[:20]
        count = self._seen[digest] = self._seen.get(digest, 0) + 1
        return digest if count == 1 else f"{digest}-{count}"


def record_columns(source: Source) -> frozenset[str]:
    """Return the columns of a row that `record_of` reads."""
    return frozenset(source.columns.model_dump().values()) | {"task_type", "lang", "language"}


def passage_columns(source: CorpusSource) -> frozenset[str]:
    """Return the columns of a row that `passage_of` reads."""
    return frozenset({source.text, source.title})


def record_of(values: dict[str, Any], source: Source, name: str, ids: Ids) -> Row:
    """Convert a row in BGE's form (or with the source's own columns) into a record.

    The source's task_type and language override the row's; where both are missing, they are derived from the
    lengths and the scripts of query and positive.

    Raises:
        MalformedRowError: no query, no positive, or a value of a wrong type.
    """
    columns = source.columns
    query = _text(values, columns.query)
    positives, positive_scores = _scored(values, columns.positive, columns.positive_scores)
    negatives, negative_scores = _scored(values, columns.negative, columns.negative_scores)
    if not positives:
        raise MalformedRowError(f"no positive in {columns.positive!r}")
    task_type = source.task_type or _optional(values, "task_type") or _shape(query, positives[0])
    if task_type not in _TASK_TYPES:
        raise MalformedRowError(f"unknown task_type {task_type!r}")
    language = (
        source.language
        or _optional(values, "lang")
        or _optional(values, "language")
        or _languages(query, positives[0])
    )
    return {
        "id": ids.of(name, query, *positives),
        "query": query,
        "positives": positives,
        "negatives": negatives,
        "source": name,
        "task_type": task_type,
        "language": language,
        "score": _number(values, columns.score),
        "positive_scores": positive_scores,
        "negative_scores": negative_scores,
    }


def with_lists(values: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """Return a row of a format that has only texts (CSV, TSV) with the lists that its cells hold in print.

    Raises:
        MalformedRowError: a cell begins as a list of texts and cannot be read as one, or scores are no list
            of numbers.
    """
    read = dict(values)
    for column in (columns.positive, columns.negative):
        if isinstance(cell := values.get(column), str) and is_printed_list(cell):
            read[column] = _list_in(cell, column, 'as JSON, ["one", "another"], also a text in brackets')
    for column in (columns.positive_scores, columns.negative_scores):
        if isinstance(cell := values.get(column), str):
            brackets = cell.strip().startswith("[")
            one = [cell] if cell.strip() else None
            read[column] = _list_in(cell, column, "as JSON, [0.5, 0.25]") if brackets else one
    return read


def _list_in(cell: str, column: str, form: str) -> list[Any]:
    try:
        return read_printed_list(cell)
    except AmbiguousListError as error:
        raise MalformedRowError(f"{column!r} {error}; write it {form}") from error


def passage_of(values: dict[str, Any], source: CorpusSource, name: str, ids: Ids) -> Row:
    """Convert a row of a corpus into a passage.

    Raises:
        MalformedRowError: no text, or a value of a wrong type.
    """
    text, title = _text(values, source.text), _optional(values, source.title)
    return {
        "id": ids.of(name, title, text),
        "title": title,
        "text": text,
        "source": name,
        "language": source.language or guess(text),
    }


def _text(values: dict[str, Any], column: str) -> str:
    value = values.get(column)
    if value is None:
        raise MalformedRowError(f"no {column!r}; the columns are {', '.join(map(str, values)) or 'none'}")
    if not isinstance(value, str):
        raise MalformedRowError(f"{column!r} is {type(value).__name__}, not text")
    if not value.strip():
        raise MalformedRowError(f"{column!r} is empty")
    return value


def _scored(values: dict[str, Any], column: str, scores: str) -> tuple[list[str], list[float] | None]:
    """Return the texts that are not blank, and a teacher's score of each where the row has scores."""
    texts, given = _texts(values, column), values.get(scores)
    kept = [text for text in texts if text.strip()]
    if given is None:
        return kept, None
    if not isinstance(given, list) or len(given) != len(texts):
        raise MalformedRowError(f"{scores!r} is not a list of as many numbers as {column!r} has texts")
    numbers = [number for value in given if (number := _number({scores: value}, scores)) is not None]
    if len(numbers) != len(given):
        raise MalformedRowError(f"{scores!r} lacks a number")
    return kept, [number for number, text in zip(numbers, texts, strict=True) if text.strip()]


def _texts(values: dict[str, Any], column: str) -> list[str]:
    """Return a text or a list of texts as a list."""
    value = values.get(column)
    if isinstance(value, str) and is_printed_list(value) and value.rstrip().endswith(("]", ")")):
        raise MalformedRowError(
            f"{column!r} is a text that holds a printed list; write a list, also of one text in brackets"
        )
    items = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise MalformedRowError(f"{column!r} is {type(value).__name__}, neither text nor a list of texts")
    for item in items:
        if not isinstance(item, str):
            raise MalformedRowError(f"{column!r} holds {type(item).__name__}, not text")
    return items


def _optional(values: dict[str, Any], column: str) -> str:
    value = values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedRowError(f"{column!r} is {type(value).__name__}, not text")
    return value.strip()


def _number(values: dict[str, Any], column: str) -> float | None:
    """Return a finite number or None; numbers may be text, as they are in CSV."""
    value = values.get(column)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise MalformedRowError(f"{column!r} is {value!r}, not a number")
    return number


def _shape(query: str, positive: str) -> str:
    sides = ("long" if len(text) > LONG_CHARS else "short" for text in (query, positive))
    return "-".join(sides)


def _languages(query: str, positive: str) -> str:
    found = sorted({guess(query), guess(positive)} - {""})
    return "-".join(found)

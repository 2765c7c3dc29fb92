"""Readers of JSON lines and CSV in which a malformed row does not fail the whole file."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from embedline.errors import InputError, first_line

_BOM = b"\xef\xbb\xbf"
csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse a long text
_EXCERPT = 200


@dataclass(frozen=True)
class Line:
    """One row of a source and its position.

    Args:
        line: 1-based line of a text file; 1-based row of a Parquet file or a hub dataset.
        values: the row's columns, or None when it cannot be read, for the reason in `reason`.
        excerpt: the beginning of an unreadable row.
    """

    file: str
    line: int
    values: dict[str, Any] | None
    reason: str = ""
    excerpt: str = ""


def shorten(text: str) -> str:
    """Return the beginning of a row; it can be written as UTF-8, whatever the row contains."""
    return text[:_EXCERPT].encode("utf-8", "backslashreplace").decode()


def read_jsonl(path: Path) -> Iterator[Line]:
    """Read the rows of a JSON-lines file, plain or gzip; blank lines are no rows.

    Raises:
        InputError: the file cannot be opened, or is not (or not wholly) gzip although its name ends in .gz.
    """
    for number, raw in _numbered(path):
        yield _json_line(str(path), number, raw)


def count_jsonl(path: Path, at_most: int | None = None) -> int:
    """Count the rows that `read_jsonl` gives, up to `at_most`, without reading the JSON in them.

    Raises:
        InputError: as `read_jsonl`.
    """
    return sum(1 for _ in islice(_numbered(path), at_most))


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                text = raw.removeprefix(_BOM) if number == 1 else raw
                if text.strip():
                    yield number, text.strip()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(f"{path}:{number + 1}", error) from error


def _json_line(file: str, number: int, raw: bytes) -> Line:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"invalid UTF-8 at byte {error.start + 1}"
        excerpt = raw[: 4 * _EXCERPT].decode("utf-8", "backslashreplace")
        return Line(file, number, None, reason, shorten(excerpt))
    try:
        values = json.loads(text)
        if b"\\u" in raw:  # an escape can spell half of a surrogate pair, which is no text
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Line(file, number, None, "invalid UTF-8: a lone surrogate escape", shorten(text))
    except (ValueError, RecursionError) as error:
        return Line(file, number, None, f"invalid JSON: {error}", shorten(text))
    if not isinstance(values, dict):
        return Line(file, number, None, f"not a JSON object but {type(values).__name__}", shorten(text))
    return Line(file, number, values)


def read_csv(path: Path, delimiter: str = ",") -> Iterator[Line]:
    """Read the rows of a CSV file with a header; every value stays a string.

    Read with the standard library, because a data frame turns the query `null` into no query and `007` into
    7, and refuses the whole file for one row.

    Raises:
        InputError: the file cannot be opened, has no header or one column twice, or a quote is never closed.
    """
    try:
        # surrogateescape marks undecodable bytes, so that only their own row is malformed
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if not header:
                raise InputError("has no header line.", where=str(path), fix="Name the columns in line 1.")
            if twice := next((name for name in header if name and header.count(name) > 1), None):
                raise InputError(
                    f"names the column {twice!r} twice.", where=f"{path}:1", fix="Rename one of them."
                )
            yield from _csv_rows(reader, header, str(path))
    except OSError as error:
        raise unreadable(str(path), error) from error
    except csv.Error as error:
        raise unreadable(f"{path}:1", error) from error


def _csv_rows(reader: Any, header: list[str], file: str) -> Iterator[Line]:
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):  # the rest of the file went into one field
                fix = "Close it; a quote inside a field is written twice."
                raise InputError("a quote is never closed.", where=f"{file}:{start}", fix=fix) from error
            yield Line(file, start, None, f"invalid CSV: {error}")
            continue
        if not row:
            continue
        text = ",".join(row)
        if len(row) != len(header):
            reason = f"{len(row)} fields where the header has {len(header)}"
            yield Line(file, start, None, reason, shorten(text))
        elif not _is_text(text):
            yield Line(file, start, None, "invalid UTF-8", shorten(text))
        else:
            yield Line(file, start, dict(zip(header, row, strict=True)))


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unreadable(where: str, error: Exception) -> InputError:
    """Make the error for a file that cannot be read at all."""
    return InputError(
        f"cannot be read ({first_line(error)}).", where=where, fix="Check the file, or fetch it again."
    )

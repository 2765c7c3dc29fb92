"""Readers of JSON lines and JSON in which a malformed row does not fail the whole file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from embedline.encoding import decode_text, other_encoding, wide_encoding, wrong_encoding
from embedline.errors import InputError, first_line

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_START_BYTES = 4096
_EXCERPT = 200
ZERO_BYTE = "a zero byte, as in a damaged file"


@dataclass(frozen=True)
class Line:
    """One row of a source and its position.

    Args:
        line: 1-based line of a text file; 1-based row of a Parquet or JSON file or of a hub dataset.
        values: the row's columns, or None when it cannot be read, for the reason in `reason`.
        excerpt: the beginning of an unreadable row.
        lines: number of the file's lines that the row spans.
        only_text: whether the format has no other values than texts (CSV, TSV).
    """

    file: str
    line: int
    values: dict[str, Any] | None
    reason: str = ""
    excerpt: str = ""
    lines: int = 1
    only_text: bool = False


def shorten(text: str) -> str:
    """Return the beginning of a row; it can be written as UTF-8, whatever the row contains."""
    return text[:_EXCERPT].encode("utf-8", "backslashreplace").decode()


def read_jsonl(path: Path) -> Iterator[Line]:
    """Read the rows of a JSON-lines file, plain or gzip; blank lines are no rows.

    Raises:
        InputError: the file cannot be opened, is in another encoding than UTF-8, or is not (or not wholly)
            gzip although its name ends in .gz.
    """
    for entry in text_lines(path):
        yield entry if isinstance(entry, Line) else _json_line(str(path), *entry)


def count_jsonl(path: Path, at_most: int | None = None) -> int:
    """Count the rows that `read_jsonl` gives, up to `at_most`, without reading the JSON in them.

    Raises:
        InputError: as `read_jsonl`.
    """
    return sum(1 for _ in islice(text_lines(path), at_most))


def read_json(path: Path) -> Iterator[Line]:
    """Read the rows of a JSON file, plain or gzip: one list of objects, or one object a line.

    Raises:
        InputError: the file cannot be read, is not JSON, or is in another encoding than UTF-8.
    """
    start = next((raw for _, raw in filled_lines(path)), b"").lstrip()
    if not start.startswith(b"["):
        yield from read_jsonl(path)
        return
    text = decode_text(b"".join(raw for _, raw in raw_lines(path)), str(path))
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(str(path), error) from error
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield Line(str(path), number, row)
        else:
            reason = f"not a JSON object but {type(row).__name__}"
            yield Line(str(path), number, None, reason, shorten(json.dumps(row, ensure_ascii=False)))


def text_lines(path: Path, blank: bytes = _BLANK) -> Iterator[tuple[int, str] | Line]:
    """Yield the number and the text of each line that is not blank; a malformed row where it is not UTF-8.

    A line ends with a line feed alone (or with a carriage return before it), as in JSON lines.

    Args:
        blank: a line of these characters alone is blank.

    Raises:
        InputError: the file cannot be read, most of its non-ASCII lines are in another known encoding, or
            its lines end with carriage returns.
    """
    suspected = True
    for number, raw in filled_lines(path, blank):
        if number == 1 and not raw.endswith(b"\n") and b"\r" in raw.strip():
            fix = f"Convert the file: tr '\\r' '\\n' < {path.name} > {path.name}.lf"
            raise InputError("ends its lines with carriage returns alone.", where=f"{path}:1", fix=fix)
        try:
            yield number, raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            if suspected:
                refuse_other_encoding(path, number)
                suspected = False
            reason = f"invalid UTF-8 at byte {error.start + 1}"
            excerpt = raw[: 4 * _EXCERPT].decode("utf-8", "backslashreplace")
            yield Line(str(path), number, None, reason, shorten(excerpt))


def refuse_other_encoding(path: Path, number: int) -> None:
    """Refuse a file that is in another encoding as a whole; one damaged row costs itself only.

    Args:
        number: of the first line that is not UTF-8.

    Raises:
        InputError: most of the file's non-ASCII lines are in another known encoding.
    """
    if encoding := other_encoding(raw for _, raw in raw_lines(path)):
        raise wrong_encoding(encoding, f"{path}:{number}", path.name)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a plain or gzip file with their numbers, without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is UTF-16.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            if encoding := wide_encoding(file.read(_START_BYTES)):
                raise wrong_encoding(encoding, f"{path}:1", path.name)
            file.seek(0)
            for number, raw in enumerate(file, 1):
                yield number, raw.removeprefix(_BOM) if number == 1 else raw
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(f"{path}:{number + 1}", error) from error


def filled_lines(path: Path, blank: bytes = _BLANK) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of `raw_lines` that are not blank."""
    return ((number, raw) for number, raw in raw_lines(path) if raw.strip(blank))


def _json_line(file: str, number: int, text: str) -> Line:
    try:
        values = json.loads(text.strip())
        if "\\u" in text:  # an escape can spell half of a surrogate pair, which is no text
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return Line(file, number, None, "invalid UTF-8: a lone surrogate escape", shorten(text.strip()))
    except (ValueError, RecursionError) as error:
        return Line(file, number, None, f"invalid JSON: {error}", shorten(text.strip()))
    if not isinstance(values, dict):
        reason = f"not a JSON object but {type(values).__name__}"
        return Line(file, number, None, reason, shorten(text.strip()))
    return Line(file, number, values)


def unreadable(where: str, error: Exception) -> InputError:
    """Make the error for a file that cannot be read at all."""
    return InputError(
        f"cannot be read ({first_line(error)}).", where=where, fix="Check the file, or fetch it again."
    )

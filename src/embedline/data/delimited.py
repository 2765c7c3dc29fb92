"""Readers of CSV and TSV: a header, then one row a record; every value stays a string.

Read with the standard library, because a data frame turns the query `null` into no query and `007` into 7,
and refuses the whole file for one row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from embedline.data.lines import (
    ZERO_BYTE,
    Line,
    raw_lines,
    refuse_other_encoding,
    shorten,
    text_lines,
    unreadable,
)
from embedline.errors import InputError

_LINE_END = b"\r\n"
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w"\r\n])"?[\r\n]*', re.IGNORECASE)  # Excel's, before the header
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse a long text


def read_tsv(path: Path) -> Iterator[Line]:
    """Read the rows of a TSV file: one line is one row, and a quote is a character like any other.

    TSV (IANA's text/tab-separated-values) has no quoting; a value holds neither tabs nor line ends.

    Raises:
        InputError: the file cannot be read, is in another encoding than UTF-8, has another separator, no
            header or one column twice.
    """
    header: list[str] = []
    for entry in _tsv_lines(path):
        if isinstance(entry, Line):
            if not header:
                raise InputError(f"the header is {entry.reason}.", where=f"{path}:{entry.line}")
            yield entry
            continue
        number, text = entry
        fields = text.split("\t")
        if header:
            yield _row(str(path), number, header, fields)
        else:
            header = _header(fields, f"{path}:{number}", "\t")
    if not header:
        _header(header, str(path), "\t")


def count_tsv(path: Path, at_most: int | None = None) -> int:
    """Count the rows that `read_tsv` gives, up to `at_most`: the lines below the header.

    Raises:
        InputError: the file cannot be read, or is in another encoding than UTF-8.
    """
    return sum(1 for _ in islice(_tsv_lines(path), 1, None if at_most is None else at_most + 1))


def _tsv_lines(path: Path) -> Iterator[tuple[int, str] | Line]:
    """Yield the lines of `text_lines`, without one before the header that names the tab as separator."""
    entries = text_lines(path, _LINE_END)
    for first in islice(entries, 1):
        stated = None if isinstance(first, Line) else _SEPARATOR_LINE.fullmatch(first[1])
        if stated is None:
            yield first
        elif stated[1] != "\t":
            fix = "Rename the file to .csv, whose separator may be any."
            raise InputError(f"names {stated[1]!r} as its separator.", where=f"{path}:1", fix=fix)
    yield from entries


def read_csv(path: Path) -> Iterator[Line]:
    """Read the rows of a CSV file (RFC 4180), with commas or the separator of a first line `sep=;`.

    A quoted value may hold line ends: `lines` of such a row is the number of lines that it spans, because an
    unpaired quote joins rows in the same way.

    Raises:
        InputError: the file cannot be opened, is in another encoding than UTF-8, has an unstated separator,
            no header or one column twice, or a quote is never closed.
    """
    next(raw_lines(path), None)  # refuses UTF-16
    try:
        # surrogateescape marks undecodable bytes, so that only their own row is malformed
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            stated = _SEPARATOR_LINE.fullmatch(first)
            separator = stated[1] if stated else ","
            lines = chain(["\n" if stated else first], file)  # a blank line: the lines keep their numbers
            reader = csv.reader(lines, strict=True, delimiter=separator)
            header = next((row for row in reader if row), [])
            where = f"{path}:{reader.line_num}" if header else str(path)
            if not _is_text(",".join(header)):
                refuse_other_encoding(path, reader.line_num)
                raise InputError("the header is not UTF-8.", where=where)
            yield from _csv_rows(reader, _header(header, where, separator), path)
    except OSError as error:
        raise unreadable(str(path), error) from error
    except csv.Error as error:
        raise unreadable(f"{path}:1", error) from error


def _csv_rows(reader: Any, header: Sequence[str], path: Path) -> Iterator[Line]:
    file, suspected = str(path), True
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
            yield Line(file, start, None, f"invalid CSV: {error}", lines=reader.line_num - start + 1)
            continue
        if not row:
            continue
        line = _row(file, start, header, row, reader.line_num - start + 1)
        if suspected and line.values is None and not _is_text(",".join(row)):
            refuse_other_encoding(path, start)
            suspected = False
        yield line


def refuse_stated_separator(path: Path) -> None:
    """Refuse a CSV with a first line `sep=;` where another reader would take this line for the header.

    Raises:
        InputError: it has one.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if _SEPARATOR_LINE.fullmatch(file.readline(80)):
            fix = "Remove the line; state the separator as `sep` in the README.md's configs."
            raise InputError("names a separator, which is no header.", where=f"{path}:1", fix=fix)


def _header(names: list[str], where: str, separator: str) -> list[str]:
    """Return the names of the columns, without blanks and byte order marks around them.

    Raises:
        InputError: they are no names, or one is there twice.
    """
    names = [name.strip().strip("\ufeff").strip() for name in names]
    if not any(names):
        raise InputError("has no header line.", where=where, fix="Name the columns in line 1.")
    if quoted := next((name for name in names if name.startswith('"')), None):
        fix = "Write the names without quotes, and in a CSV without a blank before a quote."
        raise InputError(f"names the column {quoted!r}, with its quotes.", where=where, fix=fix)
    if strange := next((name for name in names if _CONTROL.search(name)), None):
        fix = "Save the file as UTF-8."
        raise InputError(f"has control characters in the header ({strange!r}).", where=where, fix=fix)
    other = next((name for one, name in _SEPARATORS.items() if one != separator and one in names[0]), None)
    if len(names) == 1 and other:
        fix = "Rename the file to .csv." if separator == "\t" else "State it in a first line, as sep=; does."
        raise InputError(
            f"has one column, {names[0]!r}: {other} seems to separate several.", where=where, fix=fix
        )
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise InputError(f"names the column {twice!r} twice.", where=where, fix="Rename one of them.")
    return names


def _row(file: str, number: int, header: Sequence[str], fields: Sequence[str], lines: int = 1) -> Line:
    text = ",".join(fields)
    if len(fields) != len(header):
        reason = f"{len(fields)} fields where the header has {len(header)}"
        if lines > 1:
            reason += f"; a quote joins the lines {number} to {number + lines - 1}"
        return Line(file, number, None, reason, shorten(text), lines, True)
    if not _is_text(text):
        return Line(file, number, None, "invalid UTF-8", shorten(text), lines, True)
    if "\0" in text:
        return Line(file, number, None, ZERO_BYTE, shorten(text), lines, True)
    return Line(file, number, dict(zip(header, fields, strict=True)), lines=lines, only_text=True)


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

"""Readers of CSV and TSV: a header, then one row a record; every value stays a string.

Read with the standard library, because a data frame turns the query `null` into no query and `007` into 7,
and refuses the whole file for one row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from embedline.data.lines import (
    Line,
    raw_lines,
    refuse_other_encoding,
    shorten,
    text_lines,
    unreadable,
)
from embedline.errors import InputError

_LINE_END = b"\r\n"
csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters would refuse a long text


def read_tsv(path: Path) -> Iterator[Line]:
    """Read the rows of a TSV file: one line is one row, and a quote is a character like any other.

    TSV (IANA's text/tab-separated-values) has no quoting; a value holds neither tabs nor line ends.

    Raises:
        InputError: the file cannot be read, is in another encoding than UTF-8, has no header or one column
            twice.
    """
    header: list[str] = []
    for entry in text_lines(path, _LINE_END):
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
            header = _header(fields, f"{path}:{number}")
    if not header:
        _header(header, str(path))


def count_tsv(path: Path, at_most: int | None = None) -> int:
    """Count the rows that `read_tsv` gives, up to `at_most`: the lines below the header.

    Raises:
        InputError: the file cannot be read, or is in another encoding than UTF-8.
    """
    return sum(1 for _ in islice(text_lines(path, _LINE_END), 1, None if at_most is None else at_most + 1))


def read_csv(path: Path) -> Iterator[Line]:
    """Read the rows of a CSV file (RFC 4180).

    A quoted value may hold line ends: `lines` of such a row is the number of lines that it spans, because an
    unpaired quote joins rows in the same way.

    Raises:
        InputError: the file cannot be opened, is in another encoding than UTF-8, has no header or one column
            twice, or a quote is never closed.
    """
    next(raw_lines(path), None)  # refuses UTF-16
    try:
        # surrogateescape marks undecodable bytes, so that only their own row is malformed
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not _is_text(",".join(header)):
                refuse_other_encoding(path, 1)
                raise InputError("the header is not UTF-8.", where=f"{path}:1")
            yield from _csv_rows(reader, _header(header, f"{path}:1" if header else str(path)), path)
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


def _header(names: list[str], where: str) -> list[str]:
    if not any(names):
        raise InputError("has no header line.", where=where, fix="Name the columns in line 1.")
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
    return Line(file, number, dict(zip(header, fields, strict=True)), lines=lines, only_text=True)


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True

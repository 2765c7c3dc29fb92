"""Passages with their ids, for evaluation, `search` and `embed`: one reader, so that all accept the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from embedline.data.evaluation_reader import with_title
from embedline.data.lines import Line
from embedline.data.sources import read_source
from embedline.data.tables import Row
from embedline.data.tally import Tally
from embedline.encoding import read_text
from embedline.errors import InputError


class Passage(NamedTuple):
    """One passage of a corpus; a row without a title has an empty one."""

    id: str
    title: str
    text: str

    @property
    def titled(self) -> str:
        """Title and text, as the text is encoded in an evaluation."""
        return with_title(self.title, self.text)


def identity_of(line: Line, row: Row) -> str | None:
    """Return a row's `_id`, else its `id`; None when it has neither. 0 is an id like any other.

    Raises:
        InputError: it is neither text nor a whole number.
    """
    value = next((row[name] for name in ("_id", "id") if row.get(name) is not None), "")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(
            f"the id is {value!r}, neither text nor a whole number.", where=f"{line.file}:{line.line}"
        )
    return None if value == "" else str(value)


def title_and_text(line: Line, row: Row) -> tuple[str, str]:
    """Return a passage's title and text; one of them may be absent, both may be blank, as in BEIR's sets.

    Raises:
        InputError: the row has neither, or one is not text.
    """
    if row.get("text") is None and row.get("title") is None:
        raise InputError(
            "has neither a text nor a title.",
            where=f"{line.file}:{line.line}",
            fix=f"Its columns are {', '.join(map(str, row)) or 'none'}; name them text and title.",
        )
    return _text(line, row, "title"), _text(line, row, "text")


def read_passages(path: Path, tally: Tally | None = None) -> list[Passage]:
    """Read the passages of a file or folder; of a .txt file one a line. Without ids they are numbered.

    Args:
        tally: counts what is read.

    Raises:
        InputError: no such file, an unknown kind, a malformed row, ids in some rows only, or no passages.
    """
    if not path.exists():
        fix = "Give a folder, or a .jsonl, .json, .parquet, .csv, .tsv or .txt file."
        raise InputError("no such corpus.", where=str(path), fix=fix)
    passages = _lines(path) if path.suffix.lower() == ".txt" and path.is_file() else _rows(path, tally)
    if not passages:
        raise InputError("holds no passages.", where=str(path))
    return passages


def _lines(path: Path) -> list[Passage]:
    return [
        Passage(str(number), "", line)
        for number, line in enumerate(text_rows(read_text(path)), 1)
        if line.strip()
    ]


def text_rows(text: str) -> list[str]:
    """Split a text into its lines; the last one may end with a line feed. An empty text has none.

    A text without line feeds has lines that end with carriage returns.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    return lines if text else []


def _rows(path: Path, tally: Tally | None) -> list[Passage]:
    passages: list[Passage] = []
    named: bool | None = None
    for line in read_source(str(path.resolve()), path.parent, texts=True, tally=tally):
        where = f"{line.file}:{line.line}"
        if line.values is None:
            raise InputError(f"the row cannot be read: {line.reason}.", where=where)
        identity = identity_of(line, line.values)
        if named not in {None, identity is not None}:
            raise InputError("has an id or has none, unlike the rows before.", where=where)
        named = identity is not None
        if identity is None:
            identity = f"{Path(line.file).name}:{line.line}" if path.is_dir() else str(line.line)
        passages.append(Passage(identity, *title_and_text(line, line.values)))
    return passages


def _text(line: Line, row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{column!r} is {type(value).__name__}, not text.", where=f"{line.file}:{line.line}")
    return value or ""

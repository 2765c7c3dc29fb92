"""Readers of retrieval sets: BEIR's files, one folder with all three parts, or a hub dataset's layout."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from embedline.data.evaluation_reader import Retrieval
from embedline.data.hub import read_folder, splits_of
from embedline.data.lines import Line
from embedline.data.passages import identity_of, text_rows, title_and_text
from embedline.data.sources import read_source
from embedline.data.tables import Row
from embedline.encoding import read_text
from embedline.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


class Judgement(NamedTuple):
    """One line of qrels and its position (file:line)."""

    where: str
    query: str
    document: str
    grade: int


def load_retrieval(folder: Path, split: str, *, missing_documents: str = "refuse") -> Retrieval:
    """Load the set in a folder: `corpus` and `queries` (JSON lines or Parquet), and judgements.

    Judgements are `qrels.tsv`, `qrels/<split>.tsv` (BEIR, or TREC's four columns), or the same as JSON lines
    or Parquet. A folder in hub layout has configurations `corpus`, `queries`, and `qrels` or `default`.

    Args:
        missing_documents: refuse a relevant document that the corpus lacks, or keep its judgement
            (not_found). One that is not relevant is never an error.

    Raises:
        InputError: a file is missing, empty or malformed, or judgements name an unknown id or contradict each
            other.
    """
    corpus: dict[str, tuple[str, str]] = {}
    for line, row in _rows(folder, "corpus", split):
        corpus[_new_id(line, row, corpus)] = title_and_text(line, row)
    queries: dict[str, str] = {}
    for line, row in _rows(folder, "queries", split):
        queries[_new_id(line, row, queries)] = text_of(line, row, "text")
    return Retrieval(corpus, queries, _qrels(_judgements(folder, split), queries, corpus, missing_documents))


def _qrels(
    judgements: Iterator[Judgement], queries: Collection[str], corpus: Collection[str], missing_documents: str
) -> dict[str, dict[str, int]]:
    """Return query id → document id → grade."""
    qrels: dict[str, dict[str, int]] = {}
    places: dict[tuple[str, str], str] = {}
    for where, query, document, grade in judgements:
        if query not in queries:
            raise InputError(f"names a query {query!r} that the set does not have.", where=where)
        if document not in corpus and grade > 0 and missing_documents == "refuse":
            raise InputError(
                f"names a document {document!r} that the set does not have.",
                where=where,
                fix="Add it to the corpus, or set missing_documents: not_found to count it as not found.",
            )
        grades = qrels.setdefault(query, {})
        if grades.get(document, grade) != grade:
            raise InputError(
                f"gives {document!r} the grade {grade} for {query!r}; "
                f"{places[query, document]} gives it {grades[document]}.",
                where=where,
                fix="Keep one of the two lines.",
            )
        grades[document] = grade
        places.setdefault((query, document), where)
    return qrels


def rows_of_file(folder: Path, stem: str) -> Iterator[tuple[Line, Row]]:
    """Read the rows of `<stem>.jsonl`, `.jsonl.gz` or `.parquet`; a malformed row is an error."""
    found = _file(folder, stem)
    if found is None:
        names = [f"{stem}{suffix}" for suffix in SUFFIXES]
        fix = f"Any of {', '.join(names)} will do."
        raise InputError("is missing.", where=str(folder / names[0]), fix=fix)
    yield from _readable(read_source(found, folder), str(folder / found))


def text_of(line: Line, row: Row, column: str) -> str:
    """Return a text of a row.

    Raises:
        InputError: it is absent or blank.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"has no {column!r}.", where=f"{line.file}:{line.line}")
    return value


def _file(folder: Path, stem: str) -> str | None:
    names = [name for suffix in SUFFIXES if (folder / (name := f"{stem}{suffix}")).is_file()]
    if len(names) > 1:
        raise InputError(f"holds {' and '.join(names)}.", where=str(folder), fix="Leave one of them there.")
    return names[0] if names else None


def _rows(folder: Path, part: str, split: str) -> Iterator[tuple[Line, Row]]:
    configurations = splits_of(folder)
    if part not in configurations:
        return rows_of_file(folder, part)
    return _readable(_configuration(folder, part, split, configurations), f"{folder}[{part}]")


def _configuration(
    folder: Path, name: str, split: str, configurations: Mapping[str, list[str]]
) -> Iterator[Line]:
    """Read a configuration; the split of a corpus is called `corpus` by mteb, else `test` or `train`."""
    splits = configurations[name]
    chosen = next((one for one in (split, name) if one in splits), splits[0])
    return read_folder(folder, chosen, name)


def _readable(lines: Iterator[Line], where: str) -> Iterator[tuple[Line, Row]]:
    empty = True
    for line in lines:
        empty = False
        if line.values is None:
            raise InputError(f"{line.reason}.", where=f"{line.file}:{line.line}")
        yield line, line.values
    if empty:
        raise InputError("is empty.", where=where)


def _judgements(folder: Path, split: str) -> Iterator[Judgement]:
    configurations = splits_of(folder)
    names = ("qrels", "default") if "corpus" in configurations else ()
    named = next((name for name in names if name in configurations), None)
    if named is not None:
        if split not in configurations[named]:
            fix = f"Known: {', '.join(configurations[named])}."
            raise InputError(f"has no split {split!r}.", where=f"{folder}[{named}]", fix=fix)
        yield from _of_rows(_readable(read_folder(folder, split, named), f"{folder}[{named}]"))
        return
    tables = [folder / "qrels.tsv", folder / "qrels" / f"{split}.tsv"]
    for path in tables:
        if path.is_file():
            yield from _of_table(path)
            return
    for parent, stem in ((folder, "qrels"), (folder / "qrels", split)):
        if _file(parent, stem) is not None:
            yield from _of_rows(rows_of_file(parent, stem))
            return
    fix = f"A retrieval set needs corpus, queries and qrels; qrels/{split}.tsv will do, too."
    raise InputError("is missing.", where=str(tables[0]), fix=fix)


def _of_table(path: Path) -> Iterator[Judgement]:
    for number, line in enumerate(text_rows(read_text(path)), 1):
        fields = line.strip().split("\t")
        if len(fields) == 1 and len(line.split()) == 4:
            fields = line.split()
        if len(fields) == 4:  # TREC's: query, iteration, document, grade
            del fields[1]
        if not line.strip() or (number == 1 and fields[-1] in {"score", "relevance", "rel"}):
            continue
        where = f"{path}:{number}"
        try:
            query, document, grade = fields[0], fields[1], _grade(fields[2])
        except (IndexError, ValueError) as error:
            fix = "Write query-id, corpus-id and a whole score, separated by tabs."
            raise InputError(f"cannot be read: {line!r}.", where=where, fix=fix) from error
        yield Judgement(where, query, document, grade)


def _grade(text: str) -> int:
    """Return a grade that is written as 1 or 1.0.

    Raises:
        ValueError: it is no whole number.
    """
    if not _whole(grade := float(text)):
        raise ValueError(f"{text} is not a whole number")
    return int(grade)


def _of_rows(rows: Iterator[tuple[Line, Row]]) -> Iterator[Judgement]:
    for line, row in rows:
        where = f"{line.file}:{line.line}"
        # Parquet of the step ingest, and of several exporters, has underscores.
        query, document = (
            row.get(name, row.get(name.replace("-", "_"))) for name in ("query-id", "corpus-id")
        )
        grade = row.get("score")
        if query is None or document is None:
            raise InputError("has no query-id or no corpus-id.", where=where)
        if isinstance(grade, bool) or not isinstance(grade, int | float) or not _whole(grade):
            raise InputError(f"'score' is {grade!r}, not a whole number.", where=where)
        yield Judgement(where, str(query), str(document), int(grade))


def _whole(grade: float) -> bool:
    return math.isfinite(grade) and grade == int(grade)


def _new_id(line: Line, row: Row, known: Mapping[str, Any]) -> str:
    identity = identity_of(line, row)
    if identity is None:
        raise InputError("has no _id.", where=f"{line.file}:{line.line}")
    if identity in known:
        raise InputError(f"repeats the id {identity!r}.", where=f"{line.file}:{line.line}")
    return identity

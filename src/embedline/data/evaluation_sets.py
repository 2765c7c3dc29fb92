"""Held-out sets, checked and laid out as one artefact; unlike training data, nothing in them may be wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedline.config.data import EvaluationSet
from embedline.data.lines import Line
from embedline.data.sources import locate, read_source
from embedline.data.tables import Row, RowWriter, read_rows
from embedline.errors import InputError

SETS = "sets.json"
_STRINGS = {
    name: pa.schema([(column, pa.string()) for column in columns])
    for name, columns in {"corpus": ("id", "title", "text"), "queries": ("id", "text")}.items()
}
_QRELS = pa.schema([("query_id", pa.string()), ("corpus_id", pa.string()), ("score", pa.int64())])
_PAIRS = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("score", pa.float64())])


@dataclass(frozen=True)
class SetInfo:
    """One laid-out set; `count` is its queries or its pairs."""

    name: str
    kind: str
    language: str
    task_type: str
    count: int


@dataclass(frozen=True)
class Retrieval:
    """corpus: id → (title, text); queries: id → text; qrels: query id → corpus id → score."""

    corpus: dict[str, tuple[str, str]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def lay_out(sets: Sequence[EvaluationSet], root: Path, out_folder: Path) -> list[SetInfo]:
    """Write every set below `out_folder` as Parquet, and `sets.json` beside them.

    Args:
        root: folder that relative paths start from.

    Raises:
        InputError: a file is missing, empty or malformed, or qrels name an unknown id.
    """
    out_folder.mkdir(parents=True, exist_ok=True)
    infos = []
    for item in sets:
        place = locate(item.path, root)
        if not place.is_dir():
            raise InputError("an evaluation set is a folder.", where=str(place))
        name = item.name or place.name
        folder = out_folder / name
        folder.mkdir()
        if item.kind == "retrieval":
            count = write_retrieval(_load_retrieval(place), folder)
        else:
            count = _write_pairs(place, item, folder)
        default = {"retrieval": "short-long", "bitext": "bitext"}.get(item.kind, "sts")
        infos.append(SetInfo(name, item.kind, item.language, item.task_type or default, count))
    write_sets(out_folder, infos)
    return infos


def write_sets(folder: Path, infos: Sequence[SetInfo]) -> None:
    """List the laid-out sets of an evaluation artefact."""
    text = json.dumps([asdict(info) for info in infos], ensure_ascii=False, indent=1)
    (folder / SETS).write_text(text + "\n", encoding="utf-8")


def read_sets(folder: Path) -> list[SetInfo]:
    """The sets of an evaluation artefact.

    Raises:
        InputError: it has no `sets.json`.
    """
    path = folder / SETS
    if not path.is_file():
        raise InputError("holds no evaluation sets: it has no sets.json.", where=str(folder))
    return [SetInfo(**info) for info in json.loads(path.read_text(encoding="utf-8"))]


def read_retrieval(folder: Path) -> Retrieval:
    """A laid-out retrieval set."""
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(folder / "qrels.parquet"):
        qrels.setdefault(row["query_id"], {})[row["corpus_id"]] = row["score"]
    return Retrieval(
        {row["id"]: (row["title"], row["text"]) for row in read_rows(folder / "corpus.parquet")},
        {row["id"]: row["text"] for row in read_rows(folder / "queries.parquet")},
        qrels,
    )


def read_pairs(folder: Path) -> list[tuple[str, str, float | None]]:
    """A laid-out set of sentence pairs: sentence1, sentence2, score (a label 0 or 1, or none for bitext)."""
    return [(row["sentence1"], row["sentence2"], row["score"]) for row in read_rows(folder / "pairs.parquet")]


def _load_retrieval(place: Path) -> Retrieval:
    corpus: dict[str, tuple[str, str]] = {}
    for line, row in _rows(place, "corpus"):
        title = _text(line, row, "title", optional=True)
        corpus[_new_id(line, row, corpus)] = (title, _text(line, row, "text"))
    queries: dict[str, str] = {}
    for line, row in _rows(place, "queries"):
        queries[_new_id(line, row, queries)] = _text(line, row, "text")
    return Retrieval(corpus, queries, _read_qrels(place / "qrels.tsv", queries, corpus))


def _read_qrels(path: Path, queries: Row, corpus: Row) -> dict[str, dict[str, int]]:
    if not path.is_file():
        fix = "A retrieval set needs corpus, queries and qrels."
        raise InputError("is missing.", where=str(path), fix=fix)
    qrels: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8.", where=str(path)) from error
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and fields[-1].strip() == "score"):
            continue
        where = f"{path}:{number}"
        try:
            query, document, score = fields[0], fields[1], int(fields[2])
        except (IndexError, ValueError) as error:
            fix = "Write query-id, corpus-id and a whole score, separated by tabs."
            raise InputError(f"cannot be read: {line!r}.", where=where, fix=fix) from error
        for name, wanted, known in (("query", query, queries), ("document", document, corpus)):
            if wanted not in known:
                raise InputError(f"names a {name} {wanted!r} that the set does not have.", where=where)
        qrels.setdefault(query, {})[document] = score
    return qrels


def write_retrieval(found: Retrieval, folder: Path) -> int:
    """Queries without any relevant document cannot be scored: they stay out, as in mteb."""
    asked = {query for query, relevant in found.qrels.items() if max(relevant.values()) > 0}
    if not asked:
        raise InputError("no query has a relevant document.", where=folder.name)
    with RowWriter(folder / "corpus.parquet", _STRINGS["corpus"]) as writer:
        for key, (title, text) in found.corpus.items():
            writer.write({"id": key, "title": title, "text": text})
    with RowWriter(folder / "queries.parquet", _STRINGS["queries"]) as writer:
        for key, text in found.queries.items():
            if key in asked:
                writer.write({"id": key, "text": text})
    with RowWriter(folder / "qrels.parquet", _QRELS) as writer:
        for query in found.queries:
            for document, score in found.qrels[query].items() if query in asked else ():
                writer.write({"query_id": query, "corpus_id": document, "score": score})
    return len(asked)


def _write_pairs(place: Path, item: EvaluationSet, folder: Path) -> int:
    """Pairs whose label is null have no known answer and stay out."""
    with RowWriter(folder / "pairs.parquet", _PAIRS) as writer:
        for line, row in _rows(place, item.split):
            score = None if item.kind == "bitext" else _score(line, row, item.kind)
            if score is None and item.kind != "bitext":
                continue
            sentences = {name: _text(line, row, name) for name in ("sentence1", "sentence2")}
            writer.write({**sentences, "score": score})
    if writer.count == 0:
        raise InputError("holds no pair with an answer.", where=str(place))
    return writer.count


def _score(line: Line, row: Row, kind: str) -> float | None:
    column = next((name for name in ("score", "label") if name in row), None)
    if column is None:
        raise InputError("has neither a score nor a label.", where=f"{line.file}:{line.line}")
    value = row[column]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{column!r} is {value!r}, not a number.", where=f"{line.file}:{line.line}")
    if kind == "pairs" and value not in {0, 1}:
        raise InputError(f"{column!r} is {value!r}; a pair is 0 or 1.", where=f"{line.file}:{line.line}")
    return float(value)


def _rows(place: Path, stem: str) -> Iterator[tuple[Line, Row]]:
    """The rows of `<stem>.jsonl`, `.jsonl.gz` or `.parquet`; a row that cannot be read is an error here."""
    names = [f"{stem}{suffix}" for suffix in (".jsonl", ".jsonl.gz", ".parquet")]
    found = next((name for name in names if (place / name).is_file()), None)
    if found is None:
        fix = f"Any of {', '.join(names)} will do."
        raise InputError("is missing.", where=str(place / names[0]), fix=fix)
    empty = True
    for line in read_source(found, place):
        empty = False
        if line.values is None:
            raise InputError(f"{line.reason}.", where=f"{line.file}:{line.line}")
        yield line, line.values
    if empty:
        raise InputError("is empty.", where=str(place / found))


def _new_id(line: Line, row: Row, known: dict[str, Any]) -> str:
    value = row.get("_id", row.get("id"))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError("has no _id.", where=f"{line.file}:{line.line}")
    if str(value) in known:
        raise InputError(f"repeats the id {value!r}.", where=f"{line.file}:{line.line}")
    return str(value)


def _text(line: Line, row: Row, column: str, *, optional: bool = False) -> str:
    value = row.get(column)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or (not optional and not value.strip()):
        raise InputError(f"has no {column!r}.", where=f"{line.file}:{line.line}")
    return value

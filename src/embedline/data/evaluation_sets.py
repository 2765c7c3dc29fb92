"""Held-out sets, checked and written as one artefact; unlike in training data, a bad row is an error."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from embedline.config.data import EvaluationSet, first_repeated
from embedline.data.evaluation_reader import SETS, TEST, TRAIN, Retrieval, SetInfo
from embedline.data.lines import Line
from embedline.data.retrieval_files import load_retrieval, rows_of_file, text_of
from embedline.data.sources import locate
from embedline.data.tables import Row, RowWriter
from embedline.errors import InputError

_STRINGS = {
    name: pa.schema([(column, pa.string()) for column in columns])
    for name, columns in {"corpus": ("id", "title", "text"), "queries": ("id", "text")}.items()
}
_QRELS = pa.schema([("query_id", pa.string()), ("corpus_id", pa.string()), ("score", pa.int64())])
_LABELLED = pa.schema([("split", pa.string()), ("text", pa.string()), ("labels", pa.list_(pa.string()))])
_TASK_TYPES = {
    "retrieval": "short-long",
    "bitext": "bitext",
    "classification": "classification",
    "multilabel": "classification",
}
_PAIRS = pa.schema([("sentence1", pa.string()), ("sentence2", pa.string()), ("score", pa.float64())])


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
        source = locate(item.path, root)
        if not source.is_dir():
            raise InputError(
                "an evaluation set is a folder.",
                where=str(source),
                fix="Name the folder that holds the file.",
            )
        name = item.name or source.name
        folder = out_folder / name
        folder.mkdir()
        if item.kind == "retrieval":
            count = write_retrieval(load_retrieval(source, item.split), folder)
        elif item.kind in {"classification", "multilabel"}:
            count = _write_labelled(source, item, folder)
        else:
            count = _write_pairs(source, item, folder)
        default = _TASK_TYPES.get(item.kind, "sts")
        infos.append(SetInfo(name, item.kind, item.language, item.task_type or default, count))
    write_sets(out_folder, infos)
    return infos


def write_sets(folder: Path, infos: Sequence[SetInfo]) -> None:
    """Write the list of the sets of an evaluation artefact."""
    text = json.dumps([asdict(info) for info in infos], ensure_ascii=False, indent=1)
    (folder / SETS).write_text(text + "\n", encoding="utf-8")


def write_retrieval(found: Retrieval, folder: Path) -> int:
    """Write a retrieval set and return its number of queries.

    Queries without any relevant document cannot be scored and are left out, as in mteb.

    Raises:
        InputError: no query has a relevant document.
    """
    scored = {query for query, relevant in found.qrels.items() if max(relevant.values()) > 0}
    if not scored:
        raise InputError("no query has a relevant document.", where=folder.name)
    with RowWriter(folder / "corpus.parquet", _STRINGS["corpus"]) as writer:
        for key, (title, text) in found.corpus.items():
            writer.write({"id": key, "title": title, "text": text})
    with RowWriter(folder / "queries.parquet", _STRINGS["queries"]) as writer:
        for key, text in found.queries.items():
            if key in scored:
                writer.write({"id": key, "text": text})
    with RowWriter(folder / "qrels.parquet", _QRELS) as writer:
        for query in found.queries:
            for document, score in found.qrels[query].items() if query in scored else ():
                writer.write({"query_id": query, "corpus_id": document, "score": score})
    return len(scored)


def _write_pairs(source: Path, item: EvaluationSet, folder: Path) -> int:
    """Write sentence pairs and return their number; pairs whose label is null are left out."""
    with RowWriter(folder / "pairs.parquet", _PAIRS) as writer:
        for line, row in rows_of_file(source, item.split):
            score = None if item.kind == "bitext" else _score(line, row, item.kind)
            if score is None and item.kind != "bitext":
                continue
            sentences = {name: text_of(line, row, name) for name in ("sentence1", "sentence2")}
            writer.write({**sentences, "score": score})
    if writer.count == 0:
        raise InputError("holds no pair with an answer.", where=str(source), fix="Give it scores or labels.")
    return writer.count


def _write_labelled(source: Path, item: EvaluationSet, folder: Path) -> int:
    """Write the texts to classify and those of `train`; return the number of the former."""
    if item.split == TRAIN:
        raise InputError(
            "a classifier learns from train: it cannot be scored on it.",
            where=str(source),
            fix="Choose another split.",
        )
    counts = Counter[str]()
    with RowWriter(folder / "labelled.parquet", _LABELLED) as writer:
        for split, stem in ((TRAIN, TRAIN), (TEST, item.split)):
            for line, row in rows_of_file(source, stem):
                labels = _labels(line, row, item.kind)
                writer.write({"split": split, "text": text_of(line, row, "text"), "labels": labels})
                counts[split] += 1
    return counts[TEST]


def _labels(line: Line, row: Row, kind: str) -> list[str]:
    """Return the labels of a row as text: words or whole numbers; a multilabel row may have none."""
    value = row.get("labels", row.get("label")) if kind == "multilabel" else [row.get("label")]
    if not isinstance(value, list) or any(
        isinstance(one, bool) or not isinstance(one, str | int) for one in value
    ):
        column = "labels, a list of words or whole numbers" if kind == "multilabel" else "label"
        raise InputError(f"has no {column}.", where=f"{line.file}:{line.line}")
    return [str(one) for one in value]


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


def set_names(sets: Sequence[EvaluationSet]) -> list[str]:
    """Return the names of held-out sets; a set's scores and its folder go by its name.

    Raises:
        InputError: two sets have one name, or a name is a path.
    """
    names = [item.name or Path(item.path).name for item in sets]
    if repeated := first_repeated(names):
        number = repeated[0]
        raise InputError(
            f"two sets are called {names[number]!r}.",
            where=f"data.evaluation.{number}.name",
            fix="Give this one another name.",
        )
    for number, name in enumerate(names):
        if Path(name).name != name:
            raise InputError(
                f"{name!r} is not a name for a set.",
                where=f"data.evaluation.{number}.name",
                fix="Leave out the slashes.",
            )
    return names

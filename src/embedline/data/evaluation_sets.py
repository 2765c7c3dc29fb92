"""Held-out sets, checked and written as one artefact; unlike in training data, a bad row is an error."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from embedline.config.data import EvaluationSet, first_repeated
from embedline.config.names import name_problem
from embedline.data.evaluation_reader import SETS, TEST, TRAIN, Retrieval, SetInfo
from embedline.data.lines import Line
from embedline.data.retrieval_files import load_retrieval, rows_of_file, text_of
from embedline.data.sources import locate
from embedline.data.tables import Row, RowWriter
from embedline.errors import InputError

_log = logging.getLogger(__name__)

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
        task_type = item.task_type or _TASK_TYPES.get(item.kind, "sts")
        info = SetInfo(name, item.kind, item.language, task_type, 0)
        if item.kind == "retrieval":
            found = load_retrieval(source, item.split, missing_documents=item.missing_documents)
            info = write_retrieval(found, folder, info, ignore_identical_ids=item.ignore_identical_ids)
        elif item.kind in {"classification", "multilabel"}:
            info = replace(info, count=_write_labelled(source, item, folder))
        else:
            info = replace(info, count=_write_pairs(source, item, folder))
        infos.append(info)
    write_sets(out_folder, infos)
    return infos


def write_sets(folder: Path, infos: Sequence[SetInfo]) -> None:
    """Write the list of the sets of an evaluation artefact."""
    text = json.dumps([asdict(info) for info in infos], ensure_ascii=False, indent=1)
    (folder / SETS).write_text(text + "\n", encoding="utf-8")


def write_retrieval(
    found: Retrieval, folder: Path, info: SetInfo, *, ignore_identical_ids: bool | None = None
) -> SetInfo:
    """Write a retrieval set; return its info with the number of queries and what it does with identical ids.

    Queries without any relevant document are left out: they cannot be answered.

    Args:
        ignore_identical_ids: as in `EvaluationSet`.

    Raises:
        InputError: no query has a relevant document.
    """
    scored = {query for query, grades in found.qrels.items() if any(grade > 0 for grade in grades.values())}
    if not scored:
        raise InputError("no query has a relevant document.", where=folder.name)
    ignored = queries_are_documents(found) if ignore_identical_ids is None else ignore_identical_ids
    info = replace(
        info,
        count=len(scored),
        ignore_identical_ids=ignored,
        notes=list(_retrieval_notes(found, scored, ignored=ignored)),
    )
    for note in info.notes:
        _log.warning("%s: %s", info.name, note)
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
    return info


def queries_are_documents(found: Retrieval) -> bool:
    """Return whether queries are documents of the set, under the same id, as in ArguAna and Quora.

    So they are when most queries with a document's id have its text, too, and it is not judged relevant to
    them: such a document is the query itself, and would be its best result.
    """
    shared = [query for query in found.queries if query in found.corpus]
    same = sum(
        _plain(found.queries[query]) in _texts_of(*found.corpus[query])
        and found.qrels.get(query, {}).get(query, 0) <= 0
        for query in shared
    )
    return 2 * same > len(shared)


def _texts_of(title: str, text: str) -> set[str]:
    return {_plain(text), _plain(f"{title} {text}")}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _retrieval_notes(found: Retrieval, scored: Collection[str], *, ignored: bool) -> Iterator[str]:
    """Yield what a retrieval set's scores must be read with, and the queries or documents it is about."""
    own = [query for query in scored if query in found.corpus]
    if ignored and own:
        yield f"queries whose results leave out the document with their id: {len(own):,}"
    answers = sum(found.qrels[query].get(query, 0) > 0 for query in own)
    if ignored and answers:
        yield f"of these, queries whose own document is judged relevant, and so is not found: {answers:,}"
    lacking = {
        document
        for query in scored
        for document, grade in found.qrels[query].items()
        if grade > 0 and document not in found.corpus
    }
    if lacking:
        yield f"relevant documents that the corpus lacks, counted as not found: {len(lacking):,}"
    if unanswered := len(found.qrels) - len(scored):
        yield f"judged queries without a relevant document, not scored (they are 0 in mteb): {unanswered:,}"


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
        if problem := name_problem(name):
            raise InputError(f"{name[:50]!r} {problem}.", where=f"data.evaluation.{number}.name")
    return names

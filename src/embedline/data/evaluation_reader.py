"""Held-out sets as ingest lays them out: one folder a set, and `sets.json` that lists them.

`evaluation_sets` writes them. A module of its own, because the code version of a step covers all that it
imports: a step that only reads sets must not run again when the reader of a source format changes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedline.data.tables import read_rows
from embedline.errors import InputError

SETS = "sets.json"
TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class SetInfo:
    """One laid-out set.

    Args:
        count: its queries, its pairs, or the texts to classify.
        ignore_identical_ids: the document with a query's id is no result of this query.
        notes: what its scores must be read with, one sentence each.
    """

    name: str
    kind: str
    language: str
    task_type: str
    count: int
    ignore_identical_ids: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Retrieval:
    """A retrieval set: corpus id → (title, text), query id → text, query id → corpus id → grade.

    A judged document may be absent from the corpus.
    """

    corpus: dict[str, tuple[str, str]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


class SentencePair(NamedTuple):
    """Two sentences and the similarity (or label, 0 or 1) annotated for them; bitext has none."""

    sentence1: str
    sentence2: str
    score: float | None


class LabelledText(NamedTuple):
    """A text to classify and its labels: one, or any number in a multilabel set."""

    text: str
    labels: list[str]


def with_title(title: str | None, text: str) -> str:
    """Put a document's title before its text, as mteb and BEIR do."""
    return f"{title or ''} {text}".strip()


def read_sets(folder: Path) -> list[SetInfo]:
    """Read the list of sets of an evaluation artefact.

    Raises:
        InputError: it has no `sets.json`.
    """
    path = folder / SETS
    if not path.is_file():
        raise InputError(
            "holds no evaluation sets: it has no sets.json.",
            where=str(folder),
            fix="Name the folder of an evaluation artefact.",
        )
    return [SetInfo(**info) for info in json.loads(path.read_text(encoding="utf-8"))]


def read_queries(folder: Path) -> dict[str, str]:
    """Read the queries of a laid-out retrieval set, by id."""
    return {row["id"]: row["text"] for row in read_rows(folder / "queries.parquet")}


def read_retrieval(folder: Path) -> Retrieval:
    """Read a laid-out retrieval set."""
    qrels: dict[str, dict[str, int]] = {}
    for row in read_rows(folder / "qrels.parquet"):
        qrels.setdefault(row["query_id"], {})[row["corpus_id"]] = row["score"]
    return Retrieval(
        {row["id"]: (row["title"], row["text"]) for row in read_rows(folder / "corpus.parquet")},
        read_queries(folder),
        qrels,
    )


def read_pairs(folder: Path) -> list[SentencePair]:
    """Read a laid-out set of sentence pairs."""
    rows = read_rows(folder / "pairs.parquet")
    return [SentencePair(row["sentence1"], row["sentence2"], row["score"]) for row in rows]


def read_texts(folder: Path) -> list[str]:
    """Read the queries and the documents (without titles) of a laid-out set, or both sides of its pairs."""
    columns = [("queries", "text"), ("corpus", "text"), ("pairs", "sentence1"), ("pairs", "sentence2")]
    paths = [(folder / f"{stem}.parquet", column) for stem, column in columns]
    return [row[column] for path, column in paths if path.is_file() for row in read_rows(path)]


def read_labelled(folder: Path, split: str) -> list[LabelledText]:
    """Read the TRAIN or the TEST part of a laid-out classification set."""
    rows = read_rows(folder / "labelled.parquet")
    return [LabelledText(row["text"], row["labels"]) for row in rows if row["split"] == split]

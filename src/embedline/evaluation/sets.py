"""Evaluation sets as ingest lays them out, and the score rows that come of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from embedline.errors import InputError

LABELLED = ("classification", "multilabel")
KINDS = ("retrieval", "sts", "pairs", "bitext", *LABELLED)


@dataclass(frozen=True)
class EvaluationSet:
    """One held-out set: its folder holds corpus, queries and qrels, or pairs, or labelled (Parquet)."""

    name: str
    kind: str
    language: str
    task_type: str
    folder: Path


@dataclass(frozen=True)
class RetrievalSet:
    """Queries that have a relevant document, the corpus, and for each query document index → grade."""

    query_ids: list[str]
    queries: list[str]
    documents: list[str]
    relevant: list[dict[int, int]]


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs; `scores` is empty when the set has none (bitext)."""

    first: list[str]
    second: list[str]
    scores: np.ndarray


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels, one each where a set is no multilabel one."""

    texts: list[str]
    labels: list[list[str]]


@dataclass
class Scores:
    """Score rows and per-query values, as they stand in a `scores` artefact."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    per_query: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Scores) -> None:
        self.rows += other.rows
        self.per_query += other.per_query


def read_sets(folder: Path, names: list[str] | None = None) -> list[EvaluationSet]:
    """The sets of an evaluation artefact, all or those in `names`.

    Raises:
        InputError: a name that is not there, or a kind that nobody can score.
    """
    listed = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
    sets = {
        entry["name"]: EvaluationSet(
            entry["name"], entry["kind"], entry["language"], entry["task_type"], folder / entry["name"]
        )
        for entry in listed
    }
    for found in sets.values():
        if found.kind not in KINDS:
            raise InputError(f"has kind {found.kind!r}; known: {', '.join(KINDS)}.", where=found.name)
    for name in names or []:
        if name not in sets:
            raise InputError(
                f"there is no evaluation set {name!r}.", where="evaluate", fix=f"Known: {', '.join(sets)}."
            )
    return [sets[name] for name in names] if names else list(sets.values())


def read_retrieval(folder: Path) -> RetrievalSet:
    """Queries without any relevant document are left out; title and text are one document, as in mteb."""
    corpus = pq.read_table(folder / "corpus.parquet").to_pydict()
    queries = pq.read_table(folder / "queries.parquet").to_pydict()
    qrels = pq.read_table(folder / "qrels.parquet").to_pydict()
    place = {identity: index for index, identity in enumerate(corpus["id"])}
    relevant: dict[str, dict[int, int]] = {}
    for row, (query, document, grade) in enumerate(
        zip(qrels["query_id"], qrels["corpus_id"], qrels["score"], strict=True)
    ):
        if grade > 0:  # a relevant document that the corpus lacks still counts as one not found
            relevant.setdefault(query, {})[place.get(document, -2 - row)] = int(grade)
    kept = [(i, t) for i, t in zip(queries["id"], queries["text"], strict=True) if i in relevant]
    if not kept:
        raise InputError("no query has a relevant document.", where=f"evaluation set {folder.name}")
    titles = corpus.get("title") or [""] * len(corpus["id"])
    return RetrievalSet(
        [identity for identity, _ in kept],
        [text for _, text in kept],
        [f"{title or ''} {text}".strip() for title, text in zip(titles, corpus["text"], strict=True)],
        [relevant[identity] for identity, _ in kept],
    )


def read_pairs(folder: Path, *, scored: bool) -> Pairs:
    """Pairs of a set; with `scored`, those without a score are left out."""
    table = pq.read_table(folder / "pairs.parquet").to_pydict()
    first, second = table["sentence1"], table["sentence2"]
    scores = table.get("score") or [None] * len(first)
    kept = [i for i, score in enumerate(scores) if score is not None or not scored]
    if not kept:
        raise InputError("it has no pair to score.", where=f"evaluation set {folder.name}")
    gold = np.array([scores[i] for i in kept] if scored else [], float)
    return Pairs([first[i] for i in kept], [second[i] for i in kept], gold)


def read_labelled(folder: Path) -> tuple[Labelled, Labelled]:
    """What a classifier learns from, and what it is asked."""
    table = pq.read_table(folder / "labelled.parquet").to_pylist()
    parts = []
    for split in ("train", "test"):
        rows = [row for row in table if row["split"] == split]
        if not rows:
            raise InputError(f"it has no text to {split}.", where=f"evaluation set {folder.name}")
        parts.append(Labelled([row["text"] for row in rows], [row["labels"] for row in rows]))
    return parts[0], parts[1]


def score_row(
    identity: Mapping[str, Any],
    *,
    metric: str,
    value: float,
    main: bool = False,
    interval: tuple[float | None, float | None] = (None, None),
    count: int = 0,
) -> dict[str, Any]:
    """One row; `identity` says whose score on what it is (model, digest, set, kind, language, dim, …)."""
    low, high = interval
    numbers = {
        "metric": metric,
        "main": main,
        "value": float(value),
        "low": low,
        "high": high,
        "count": count,
    }
    return {**identity, **numbers}

"""Evaluation sets as ingest lays them out, and the score rows that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedline.data import evaluation_reader
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
    sets = {
        info.name: EvaluationSet(info.name, info.kind, info.language, info.task_type, folder / info.name)
        for info in evaluation_reader.read_sets(folder)
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
    found = evaluation_reader.read_retrieval(folder)
    index_of = {identity: index for index, identity in enumerate(found.corpus)}
    judged = [(query, *item) for query, grades in found.qrels.items() for item in grades.items()]
    relevant: dict[str, dict[int, int]] = {}
    for row, (query, document, grade) in enumerate(judged):
        if grade > 0:  # a relevant document that the corpus lacks still counts as one not found
            relevant.setdefault(query, {})[index_of.get(document, -2 - row)] = int(grade)
    kept = [(identity, text) for identity, text in found.queries.items() if identity in relevant]
    if not kept:
        raise InputError("no query has a relevant document.", where=f"evaluation set {folder.name}")
    return RetrievalSet(
        [identity for identity, _ in kept],
        [text for _, text in kept],
        [f"{title or ''} {text}".strip() for title, text in found.corpus.values()],
        [relevant[identity] for identity, _ in kept],
    )


def read_pairs(folder: Path, *, scored: bool) -> Pairs:
    """Pairs of a set; with `scored`, those without a score are left out."""
    pairs = [pair for pair in evaluation_reader.read_pairs(folder) if pair.score is not None or not scored]
    if not pairs:
        raise InputError("it has no pair to score.", where=f"evaluation set {folder.name}")
    gold = np.array([pair.score for pair in pairs] if scored else [], float)
    return Pairs([pair.sentence1 for pair in pairs], [pair.sentence2 for pair in pairs], gold)


def read_labelled(folder: Path) -> tuple[Labelled, Labelled]:
    """What a classifier learns from, and what it is asked."""
    parts = []
    for split in (evaluation_reader.TRAIN, evaluation_reader.TEST):
        rows = evaluation_reader.read_labelled(folder, split)
        if not rows:
            raise InputError(f"it has no text to {split}.", where=f"evaluation set {folder.name}")
        parts.append(Labelled([row.text for row in rows], [row.labels for row in rows]))
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

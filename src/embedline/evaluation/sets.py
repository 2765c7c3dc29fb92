"""Evaluation sets, as ingest lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedline.data import evaluation_reader
from embedline.errors import InputError
from embedline.evaluation.metrics import DEPTH, ranking_metrics, without

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
    ignore_identical_ids: bool = False


@dataclass(frozen=True)
class RetrievalSet:
    """Queries that have a relevant document, the corpus, and of each query document index → grade.

    Args:
        documents: by descending id: where equal scores go to the lower index, they are in the order of
            trec_eval and mteb.
        own_document: of each query, the index of the document with its id, which is no result of it; below -1
            without one. None where identical ids are results like any other.
    """

    query_ids: list[str]
    queries: list[str]
    documents: list[str]
    relevant: list[dict[int, int]]
    own_document: np.ndarray | None = None

    @property
    def depth(self) -> int:
        """Return how many documents to search for each query."""
        return DEPTH if self.own_document is None else DEPTH + 1

    def metrics(self, ranking: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics of each query.

        Args:
            ranking: document indices, best first (Q × `depth`); -1 where nothing was found.
        """
        if self.own_document is not None:
            ranking = without(ranking, self.own_document)
        return ranking_metrics(ranking, self.relevant)


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs; `scores` is empty when the set has none (bitext)."""

    first: list[str]
    second: list[str]
    scores: np.ndarray


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels: exactly one label a text, unless the set is a multilabel one."""

    texts: list[str]
    labels: list[list[str]]


def read_sets(folder: Path, names: list[str] | None = None) -> list[EvaluationSet]:
    """Read the sets of an evaluation artefact, all or those in `names`.

    >>> [one.name for one in read_sets(Path("evaluation"))]

    Raises:
        InputError: there is no set of a name, or a set has an unknown kind.
    """
    sets = {
        info.name: EvaluationSet(
            info.name,
            info.kind,
            info.language,
            info.task_type,
            folder / info.name,
            info.ignore_identical_ids,
        )
        for info in evaluation_reader.read_sets(folder)
    }
    for known in sets.values():
        if known.kind not in KINDS:
            raise InputError(f"has kind {known.kind!r}; known: {', '.join(KINDS)}.", where=known.name)
    for name in names or []:
        if name not in sets:
            raise InputError(
                f"there is no evaluation set {name!r}.", where="evaluate", fix=f"Known: {', '.join(sets)}."
            )
    return [sets[name] for name in names] if names else list(sets.values())


def read_retrieval(folder: Path, *, ignore_identical_ids: bool = False) -> RetrievalSet:
    """Read a retrieval set; title and text are one document, as in mteb.

    Args:
        ignore_identical_ids: the document with a query's id is no result of this query.

    Raises:
        InputError: no query has a relevant document; queries without one are left out.
    """
    found = evaluation_reader.read_retrieval(folder)
    ids = sorted(found.corpus, reverse=True)
    index_of = {identity: index for index, identity in enumerate(ids)}
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
        [evaluation_reader.with_title(*found.corpus[identity]) for identity in ids],
        [relevant[identity] for identity, _ in kept],
        np.array([index_of.get(identity, -2) for identity, _ in kept]) if ignore_identical_ids else None,
    )


def read_pairs(folder: Path, *, scored: bool) -> Pairs:
    """Read the pairs of a set; with `scored`, those without a score are left out.

    Raises:
        InputError: no pair is left.
    """
    pairs = [pair for pair in evaluation_reader.read_pairs(folder) if pair.score is not None or not scored]
    if not pairs:
        raise InputError("it has no pair to score.", where=f"evaluation set {folder.name}")
    gold = np.array([pair.score for pair in pairs] if scored else [], float)
    return Pairs([pair.sentence1 for pair in pairs], [pair.sentence2 for pair in pairs], gold)


def read_labelled(folder: Path) -> tuple[Labelled, Labelled]:
    """Read the texts that a classifier learns from, and those that it is tested on.

    Raises:
        InputError: a split has no texts.
    """
    parts = []
    for split in (evaluation_reader.TRAIN, evaluation_reader.TEST):
        rows = evaluation_reader.read_labelled(folder, split)
        if not rows:
            raise InputError(f"it has no text to {split}.", where=f"evaluation set {folder.name}")
        parts.append(Labelled([row.text for row in rows], [row.labels for row in rows]))
    return parts[0], parts[1]

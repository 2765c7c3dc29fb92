"""The scores of one model that rules can name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from embedline.artifacts.scores import DENSE, EFFECTIVE_RANK, MEAN_COSINE, UNRELATED, ScoreRow
from embedline.gate.reason import Spread

MAIN = "main"


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model at full vector width.

    Args:
        model: candidate, champion, base, bm25, untrained.
        rows: the full-width rows of every set and head; none of an exported (ONNX) model.
        digests: of the model, as its rows name it.
    """

    model: str
    rows: tuple[ScoreRow, ...]
    digests: frozenset[str]

    @classmethod
    def of(cls, model: str, rows: Iterable[ScoreRow]) -> ModelScores:
        """Select the scores of `model` from the rows of any models."""
        own = [row for row in rows if row.model == model and not row.is_onnx]
        width: dict[tuple[str, str], int] = {}
        for row in own:
            width[row.set, row.head] = max(width.get((row.set, row.head), 0), row.dim)
        kept = tuple(row for row in own if row.dim == width[row.set, row.head])
        return cls(model, kept, frozenset(row.digest for row in own if row.digest))

    @cached_property
    def _rows_of(self) -> dict[tuple[str, str], list[ScoreRow]]:
        """Group the rows by set and head: a run may have thousands of sets."""
        found: dict[tuple[str, str], list[ScoreRow]] = {}
        for row in self.rows:
            found.setdefault((row.set, row.head), []).append(row)
        return found

    @property
    def spread(self) -> Spread | None:
        """Return the spread of the vectors; None when it was not measured."""
        cosine, rank = self.find(UNRELATED, MEAN_COSINE), self.find(UNRELATED, EFFECTIVE_RANK)
        if cosine is None or rank is None:
            return None
        return Spread(rank.count, cosine.value, rank.value, min(rank.count, rank.dim))

    def find(self, set_: str, metric: str = MAIN, head: str = DENSE) -> ScoreRow | None:
        """Return the score of a set; of several, the lowest (or one that is not a finite number)."""
        matching = [
            row
            for row in self._rows_of.get((set_, head), ())
            if (row.main if metric == MAIN else row.metric == metric)
        ]
        return min(
            matching, key=lambda row: row.value if math.isfinite(row.value) else -math.inf, default=None
        )

    def sets(self, metric: str = MAIN, kind: str | None = None, head: str = DENSE) -> set[str]:
        """Return the names of the sets (of one kind) that have a score in `metric`."""
        names = {row.set for row in self.rows if kind is None or row.kind == kind}
        return {name for name in names if self.find(name, metric, head)}

    def common_sets(self, other: ModelScores) -> tuple[str, set[str]]:
        """Return kind and names of the sets to compare two models on.

        The retrieval sets that both have; without any, all sets that both have, and an empty kind.
        """
        shared = self.sets(kind="retrieval") & other.sets(kind="retrieval")
        return ("retrieval", shared) if shared else ("", self.sets() & other.sets())

    def mean(self, sets: Iterable[str], metric: str = MAIN, head: str = DENSE) -> float:
        """Return the mean over `sets`, each of which has a score; not a number when one of them is none."""
        values = [row.value for name in sorted(sets) if (row := self.find(name, metric, head))]
        return math.fsum(values) / len(values)

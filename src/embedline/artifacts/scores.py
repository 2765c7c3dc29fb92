"""Score rows of `scores.jsonl`: the only reader and the only writer of that file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedline.artifacts.jsonl import read_jsonl

SCORES = "scores.jsonl"
DENSE, TORCH = "dense", "torch"

# In the place of a set: rows about the spread of a model's vectors, which are no scores and never main ones.
UNRELATED = "unrelated texts"
MEAN_COSINE, EFFECTIVE_RANK = "mean_cosine", "effective_rank"


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One score: one model on one set, by one metric, at one head, vector width and runtime.

    Args:
        model: the model's role in the run (candidate, champion, base, bm25, untrained or a stage).
        digest: of the model's folder.
        set: evaluation set or mteb task; `unrelated texts` for the spread of the vectors.
        kind: retrieval, sts, pairs, bitext, classification, …; `spread` for the spread of the vectors.
        revision: of the set's data, and of mteb for its tasks.
        prompt: the prompts of query and document, as `repr`; empty without any.
        dim: width of the vectors; 0 where nothing is cut to a width (BM25, lexical, hybrid).
        main: whether `metric` is the set's main metric.
        value: not a number where the file holds null.
        low, high: 95 % confidence interval; None when it was not measured.
        count: queries, pairs or texts.
        ignore_identical_ids: whether the document with a query's id was left out of its results.
    """

    model: str
    digest: str = ""
    set: str
    kind: str = ""
    language: str = ""
    revision: str = ""
    runtime: str = TORCH
    prompt: str = ""
    dim: int = 0
    head: str = DENSE
    metric: str = ""
    main: bool = False
    value: float = math.nan
    low: float | None = None
    high: float | None = None
    count: int = 0
    ignore_identical_ids: bool = False

    @property
    def is_dense(self) -> bool:
        """Return whether the row is about the vector that every model has, not about another head."""
        return self.head == DENSE

    @property
    def is_onnx(self) -> bool:
        """Return whether an exported model was scored."""
        return self.runtime.startswith("onnx")

    def at(self, head: str, dim: int) -> ScoreRow:
        """Return this row for another head or width."""
        return replace(self, head=head, dim=dim)

    def scored(
        self,
        metric: str,
        value: float,
        *,
        main: bool = False,
        interval: tuple[float | None, float | None] = (None, None),
        count: int = 0,
    ) -> ScoreRow:
        """Return this row with the numbers of one metric."""
        low, high = interval
        return replace(self, metric=metric, value=float(value), main=main, low=low, high=high, count=count)

    def as_json(self) -> dict[str, Any]:
        """Return the row as `scores.jsonl` holds it."""
        return asdict(self)


def score_row(row: Mapping[str, Any]) -> ScoreRow:
    """Return the row of a JSON object; what an older file lacks, or holds as null, gets its default."""
    known = {name: row[name] for name in ScoreRow.__dataclass_fields__ if row.get(name) is not None}
    if "value" in known:
        known["value"] = float(known["value"])
    return ScoreRow(**known)


def read_scores(folder: Path) -> list[ScoreRow]:
    """Read the rows of a scores artefact.

    >>> rows = read_scores(Path("runs/latest/scores"))
    >>> {row.set: row.value for row in rows if row.model == "candidate" and row.main}
    """
    return [score_row(row) for row in read_jsonl(folder / SCORES)]


def write_score_rows(folder: Path, rows: Iterable[ScoreRow]) -> None:
    """Write the rows of a scores artefact, one JSON object a line."""
    text = "".join(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
    (folder / SCORES).write_text(text, encoding="utf-8")

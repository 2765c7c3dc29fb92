"""Score rows in brief: metrics for the tracker, the candidate's main scores, the gain of each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from embedline.artifacts.scores import EFFECTIVE_RANK, MEAN_COSINE, SCORES, TORCH, ScoreRow, read_scores
from embedline.evaluation.compare import (
    CANDIDATE,
    full_width,
    heads_table,
    main_table,
    spread_table,
    stage_table,
)
from embedline.gate.model_scores import ModelScores


def stage_gains(folder: Path | None) -> dict[str, dict[str, float]]:
    """Return nDCG@10 by stage and held-out retrieval set; `mean` is over the sets that all stages have.

    Args:
        folder: the scores artefact; None when there is none.
    """
    table = stage_table(_rows(folder))
    return {
        stage: {**values, "mean": table.means[stage]} if table.means else values
        for stage, values in table.values.items()
    }


def main_scores(folder: Path | None) -> dict[str, float]:
    """Return the candidate's main score of every set, at full width; heads other than dense by name.

    Args:
        folder: the scores artefact; None when there is none.
    """
    return {
        row.set if row.is_dense else f"{row.set} ({row.head})": round(row.value, 6)
        for row in ModelScores.of(CANDIDATE, _rows(folder)).rows
        if row.main and math.isfinite(row.value)
    }


def score_metrics(rows: Sequence[ScoreRow]) -> dict[str, float]:
    """Return main scores at full width as metrics named `<model>/<set>/main`.

    Of the candidate also those of its other heads (`candidate/<set>/<head>`), and the mean over retrieval
    sets. The spread of the vectors is in `<model>/spread/mean_cosine` and `<model>/spread/effective_rank`.
    """
    metrics: dict[str, float] = {}
    for (name, _), cells in main_table(rows).items():
        for model, row in cells.items():
            path = f"mteb/{name}" if "mteb " in row.revision else name
            metrics[f"{model}/{path}/main"] = row.value
    for name, heads in heads_table(rows).items():
        metrics |= {f"candidate/{name}/{head}": row.value for head, row in heads.items() if not row.is_dense}
    ranked = [row for row in full_width(rows) if row.model == CANDIDATE and row.kind == "retrieval"]
    values = [row.value for row in ranked if row.runtime == TORCH]
    if values:
        metrics["candidate/retrieval_mean"] = sum(values) / len(values)
    for model, spread in spread_table(rows).items():
        metrics[f"{model}/spread/{MEAN_COSINE}"] = spread.mean_cosine
        metrics[f"{model}/spread/{EFFECTIVE_RANK}"] = spread.effective_rank
    return metrics


def _rows(folder: Path | None) -> list[ScoreRow]:
    return read_scores(folder) if folder is not None and (folder / SCORES).is_file() else []

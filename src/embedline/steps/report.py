"""report: all results of a run in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.curves import Curves, read_curves
from embedline.artifacts.manifest import Artifact
from embedline.artifacts.record import read_records
from embedline.artifacts.scores import SCORES, ScoreRow, read_scores
from embedline.evaluation.report import ReportData, render_report
from embedline.redaction import without_secrets
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    import pyarrow as pa

PAGE = "report.html"


def run(context: Context) -> StepResult:
    """Render the report from the artefacts of the steps before.

    Inputs, each of which may be missing: `dataset`, `triplets`, `onnx`, `scores`, `verdict`, `promotion`;
    output `report`.
    """
    config, inputs = context.step_config.config, context.inputs
    folder = context.workspace.run_folder(context.run)
    steps = [record.model_dump() for record in read_records(folder) if record.step != context.step]
    data = ReportData(
        name=str(config.get("name", "")),
        description=str(config.get("description") or ""),
        run=context.run,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        verdict=_json(inputs.get("verdict"), "verdict.json"),
        promotion=_json(inputs.get("promotion"), "promotion.json"),
        scores=_scores(inputs.get("scores")),
        funnel=_funnel(inputs.get("dataset")),
        mining=_mining(inputs.get("triplets")),
        curves=_curves(folder / "steps", [step["step"] for step in steps]),
        parity=_json(inputs.get("onnx"), "parity.json"),
        steps=steps,
    )
    page = without_secrets(render_report(data))
    (context.output("report") / PAGE).write_text(page, encoding="utf-8")
    return StepResult(summary=f"[{PAGE}]({PAGE}), {len(page) // 1024 + 1} KB.")


def _json(artifact: Artifact | None, name: str) -> dict[str, Any]:
    """Read a JSON file of an artefact; empty when there is none."""
    path = artifact.path / name if artifact else None
    if path is None or not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _scores(artifact: Artifact | None) -> list[ScoreRow]:
    """Read the score rows; none when the run did not get that far."""
    return read_scores(artifact.path) if artifact and (artifact.path / SCORES).is_file() else []


def _funnel(dataset: Artifact | None) -> dict[str, Any]:
    kept = dataset.manifest.metadata.get("funnel") if dataset else None
    return kept or _json(dataset, "funnel.json")


def _mining(triplets: Artifact | None) -> dict[str, dict[str, float]]:
    """Summarise the mined negatives of each strategy, and of all; empty when nothing was mined.

    Returns:
        `all`, and where there are several, strategy → number, median rank, mean scores.
    """
    path = triplets.path / "mining.parquet" if triplets else None
    if path is None or not path.is_file():
        return {}
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if table.num_rows == 0:
        return {}
    figures = {"all": _figures(table)}
    if "strategy" in table.column_names:  # triplets of an older version have one, without a name
        names = table["strategy"].unique().to_pylist()
        if len(names) > 1:
            figures |= {n: _figures(table.filter(pc.equal(table["strategy"], n))) for n in names}
    return figures


def _figures(mined: pa.Table) -> dict[str, float]:
    import pyarrow.compute as pc

    figures: dict[str, float] = {"mined": mined.num_rows}
    measures = {
        "mined_records": ("id", lambda column: pc.count_distinct(column)),
        "mined_rank": ("rank", lambda column: pc.quantile(column, 0.5)[0]),
        "mined_score": ("score", pc.mean),
        "mined_positive": ("positive_score", pc.mean),
    }
    for key, (column, measure) in measures.items():
        if column in mined.column_names:
            figures[key] = float(measure(mined[column]).as_py())
    return figures


def _curves(folder: Path, steps: Iterable[str]) -> dict[str, Curves]:
    """Read the curves of the steps that trained, in this run or in the run whose outputs it reuses."""
    curves = {step: read_curves(folder / step) for step in steps}
    return {step: series for step, series in curves.items() if "loss" in series}

"""ingest: read sources into records and corpus, and held-out sets into an artefact of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedline.config.data import DataConfig
from embedline.markdown import cell, table
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    from embedline.data.evaluation_reader import SetInfo


def run(context: Context) -> StepResult:
    """Write `dataset` (records, corpus, quarantine) and `evaluation`; paths start at the pinned root."""
    from embedline.data.evaluation_sets import lay_out
    from embedline.data.holdout import hold_out
    from embedline.data.ingest import ingest

    config = context.step_config.section("data", DataConfig)
    root = Path(str(context.step_config.locations.get("root", config.root or ".")))
    report = ingest(config.sources, config.corpus, root, context.output("dataset"))
    sets = lay_out(config.evaluation, root, context.output("evaluation"))
    held_out = 0
    if config.hold_out is not None:
        dataset, evaluation = context.output("dataset"), context.output("evaluation")
        info, held_out = hold_out(dataset, evaluation, config.hold_out)
        sets = [*sets, info]
    counts = {
        "records": report.total("accepted", "records") - held_out,
        "held_out": held_out,
        "passages": report.total("accepted", "corpus"),
        "quarantined": report.total("quarantined"),
        "left_out": report.total("left_out"),
    }
    return StepResult(
        metrics={"rows_read": report.total("read"), **{k: float(v) for k, v in counts.items()}},
        summary=f"{report.markdown()}\n\n{_sets_table(sets)}",
        counts={"dataset": counts, "evaluation": {info.name: info.count for info in sets}},
        metadata={"dataset": {"sources": report.as_json()}},
    )


def _sets_table(sets: list[SetInfo]) -> str:
    rows = [(info.name, info.kind, info.language, info.count) for info in sets]
    notes = [f"{info.name}: {note}" for info in sets for note in info.notes]
    shown = table(["evaluation set", "kind", "language", "queries or pairs"], rows, align="lllr")
    return "\n\n".join([shown, *map(cell, notes)])

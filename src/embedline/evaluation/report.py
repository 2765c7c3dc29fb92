"""The report of a run: one self-contained HTML file in two languages. All text from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from embedline.artifacts.scores import ScoreRow
from embedline.evaluation.charts import bar_chart
from embedline.evaluation.compare import (
    CANDIDATE,
    CHAMPION,
    HEADS,
    columns_of,
    dims_table,
    heads_table,
    main_table,
    sets_ignoring_ids,
    spread_table,
    stage_table,
)
from embedline.evaluation.curves import Curves, shown, speed
from embedline.evaluation.labels import LABELS, bilingual, label
from embedline.evaluation.reasons import finding, warnings
from embedline.gate.outcome import outcome_of
from embedline.training.engine.curves import PHASES

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """The contents of a report; what a run did not produce stays empty.

    Args:
        verdict, promotion, parity: contents of verdict.json, promotion.json and parity.json.
        scores: score rows of all models.
        funnel: table (records, corpus) → source → rows_in, rows_out, rejected (rule → rows).
        mining: `all`, and where there are several, strategy → mined (negatives), mined_records, mined_rank
            (median), mined_score, mined_positive (means).
        curves: training step → series → (step, value).
        steps: step, status, seconds, peak_memory_mb, cache_hit, passed_through.
    """

    name: str
    run: str
    created: str
    description: str = ""
    verdict: Json = field(default_factory=dict)
    promotion: Json = field(default_factory=dict)
    scores: Sequence[ScoreRow] = ()
    funnel: Json = field(default_factory=dict)
    mining: Mapping[str, Json] = field(default_factory=dict)
    curves: Mapping[str, Curves] = field(default_factory=dict)
    parity: Json = field(default_factory=dict)
    steps: Sequence[Json] = ()


def render_report(data: ReportData) -> str:
    """Render the report as an HTML page.

    >>> data = ReportData(name="support", run="support-1", created="2026-01-01", scores=read_scores(folder))
    >>> Path("report.html").write_text(render_report(data))
    """
    table = main_table(data.scores)
    dims = dims_table(data.scores)
    by_head = heads_table(data.scores)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.globals |= {"t": label, "both": bilingual, "finding": finding}
    environment.filters |= {"n": _whole, "score": _score, "real": _real, "share": _share}
    return environment.get_template("report.html.j2").render(
        data=data,
        outcome=_outcome(data.verdict, data.promotion),
        warnings=warnings(data.verdict),
        table=table,
        columns=columns_of(table),
        best=_best(table),
        ignoring_ids=sets_ignoring_ids(data.scores),
        stages=_stages(data.scores),
        dims=dims,
        widths=sorted({dim for cells in dims.values() for dim in cells}, reverse=True),
        by_head=by_head,
        spreads=spread_table(data.scores),
        heads=[head for head in HEADS if any(head in cells for cells in by_head.values())],
        funnel=[_funnel(name, sources) for name, sources in data.funnel.items() if sources],
        curves={step: shown(curves) for step, curves in data.curves.items()},
        speeds={step: speed(curves) for step, curves in data.curves.items()},
        phases=[f"{phase}_share" for phase in PHASES],
    )


def _outcome(verdict: Json, promotion: Json) -> str:
    if not verdict:
        return "no_verdict"
    outcome = outcome_of(verdict)
    if outcome != "passed" and (promotion or verdict).get("already_champion"):
        return "already_champion"
    would_refuse = outcome == "passed" and not verdict.get("would_pass", True)
    return "would_refuse" if would_refuse else outcome.replace(" ", "_")


def _best(table: Mapping[tuple[str, str], Mapping[str, ScoreRow]]) -> dict[tuple[str, str], str]:
    """Return the column of every set's best score."""
    return {key: max(cells, key=lambda name: cells[name].value) for key, cells in table.items()}


@dataclass(frozen=True)
class _StageComparison:
    """Stages side by side: `sets` is set (or `mean`) → stage → nDCG@10, `chart` shows the means."""

    names: list[str]
    sets: dict[str, dict[str, float]]
    chart: Markup


def _stages(rows: Sequence[ScoreRow]) -> _StageComparison | None:
    """Compare the stages on the sets that all of them were scored on; the champion has its own column."""
    table = stage_table(rows)
    if not table.shared:
        return None
    names = [name for name in table.values if name != CHAMPION]
    sets = {name: {stage: table.values[stage][name] for stage in names} for name in table.shared}
    if len(sets) > 1:
        sets["mean"] = {stage: table.means[stage] for stage in names}
    bars = [(label(name, tag="tspan"), table.means[name], name == CANDIDATE) for name in names]
    return _StageComparison(names, sets, bar_chart(bars))


def _funnel(table: str, sources: Mapping[str, Json]) -> dict[str, Any]:
    """Arrange the funnel of one table (records or corpus) as rows of counts."""
    rules = list(dict.fromkeys(rule for counts in sources.values() for rule in counts.get("rejected") or {}))
    rows = [
        {
            "name": name,
            "rows_in": counts.get("rows_in", 0),
            "rows_out": counts.get("rows_out", 0),
            "rejected": [(counts.get("rejected") or {}).get(rule, 0) for rule in rules],
        }
        for name, counts in sources.items()
    ]
    total = {
        "rows_in": sum(row["rows_in"] for row in rows),
        "rows_out": sum(row["rows_out"] for row in rows),
        "rejected": [sum(row["rejected"][i] for row in rows) for i in range(len(rules))],
    }
    words = [f"rule_{rule}" if f"rule_{rule}" in LABELS else rule for rule in rules]
    return {"table": table, "rules": words, "rows": rows, "total": total}


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _real(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"

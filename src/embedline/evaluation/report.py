"""One HTML file about one run: self-contained, in two languages. All text from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from embedline.evaluation.charts import bar_chart
from embedline.evaluation.compare import (
    HEADS,
    columns_of,
    dims_table,
    heads_table,
    main_table,
    stage_comparison,
)
from embedline.evaluation.curves import Curves, shown, speed
from embedline.evaluation.labels import LABELS, bilingual, label
from embedline.training.engine.curves import PHASES

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """What a report is made of; whatever a run did not produce stays empty.

    Args:
        scores: score rows.
        funnel: table (records, corpus) → source → rows_in, rows_out, rejected (rule → rows).
        mining: figures about hard negatives; empty when mining was off.
        curves: training step → series → (step, value).
        steps: step, status, seconds, peak_memory_mb, cache_hit, passed_through.
    """

    name: str
    run: str
    created: str
    description: str = ""
    verdict: Json = field(default_factory=dict)
    promotion: Json = field(default_factory=dict)
    scores: Sequence[Json] = ()
    funnel: Json = field(default_factory=dict)
    mining: Json = field(default_factory=dict)
    curves: Mapping[str, Curves] = field(default_factory=dict)
    parity: Json = field(default_factory=dict)
    steps: Sequence[Json] = ()


def render_report(data: ReportData) -> str:
    """The page."""
    table = main_table(data.scores)
    dims = dims_table(data.scores)
    by_head = heads_table(data.scores)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.globals |= {"t": label, "both": bilingual}
    environment.filters |= {"n": _whole, "score": _score, "real": _real, "share": _share}
    return environment.get_template("report.html.j2").render(
        data=data,
        outcome=_outcome(data.verdict),
        table=table,
        columns=columns_of(table),
        best=_best(table),
        stages=_stages(data),
        dims=dims,
        widths=sorted({dim for cells in dims.values() for dim in cells}, reverse=True),
        by_head=by_head,
        heads=[head for head in HEADS if any(head in cells for cells in by_head.values())],
        funnel=[_funnel(name, sources) for name, sources in data.funnel.items() if sources],
        curves={step: shown(curves) for step, curves in data.curves.items()},
        speeds={step: speed(curves) for step, curves in data.curves.items()},
        phases=[f"{phase}_share" for phase in PHASES],
    )


def _outcome(verdict: Json) -> str:
    if not verdict:
        return "no_verdict"
    if not verdict.get("passed"):
        return "refused"
    return "passed" if verdict.get("would_pass", True) else "would_refuse"


def _best(table: Mapping[tuple[str, str], Mapping[str, Json]]) -> dict[tuple[str, str], str]:
    """The column of every set's best score."""
    return {key: max(cells, key=lambda name: cells[name]["value"]) for key, cells in table.items()}


def _stages(data: ReportData) -> dict[str, Any]:
    """The comparison's sets and stages, and a chart of its mean (or of its only set)."""
    comparison = stage_comparison(data.scores)
    if not comparison:
        return {}
    values = comparison[list(comparison)[-1]]
    bars = [(label(name, tag="tspan"), value, name == "candidate") for name, value in values.items()]
    return {"names": list(values), "sets": comparison, "chart": bar_chart(bars)}


def _funnel(table: str, sources: Mapping[str, Json]) -> dict[str, Any]:
    rules = list(dict.fromkeys(rule for stage in sources.values() for rule in stage.get("rejected") or {}))
    rows = [
        {
            "name": name,
            "rows_in": stage.get("rows_in", 0),
            "rows_out": stage.get("rows_out", 0),
            "rejected": [(stage.get("rejected") or {}).get(rule, 0) for rule in rules],
        }
        for name, stage in sources.items()
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

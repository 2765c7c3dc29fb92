"""A training's curves as one small page for the pipelines UI: inline SVG, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from embedline.evaluation.charts import Point, line_chart
from embedline.training.engine.curves import PHASES, sort_key

MOST_CHARTS = 18
# The curves that the report draws for a training, in addition to the table of its speed.
SHOWN = (
    *("loss", "in_batch_accuracy", "alignment", "uniformity", "grad_norm", "tokens_per_second"),
    *("lexical_query_terms", "lexical_document_terms", "lexical_empty_share", "lexical_evenness"),
)
SPEED = ("tokens_per_second", "share_of_peak", "padding_share", "step_seconds")
Curves = Mapping[str, Sequence[Point]]
_HEAD = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px sans-serif; color: #222; margin: 16px; }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(310px, 1fr)); gap: 24px; }}
figure {{ margin: 0; max-width: 520px; }} figcaption {{ font-weight: bold; }} svg {{ width: 100%; }}
.grid {{ stroke: #ddd; }} .curve {{ fill: none; stroke: #1f5fbf; stroke-width: 1.8; }}
.tick {{ font-size: 11px; fill: #666; }} .end {{ text-anchor: end; }} .middle {{ text-anchor: middle; }}
</style></head><body><h1>{title}</h1>
""")


def shown(curves: Curves) -> list[tuple[str, Markup]]:
    """Draw the curves that the report shows, as (name, chart)."""
    return [(name, line_chart(curves[name], max_points=150)) for name in SHOWN if curves.get(name)]


def speed(curves: Curves) -> dict[str, float]:
    """Summarise the speed of a training: means over its log, and each phase's share of a step's time."""
    means = {name: _mean(curves[name]) for name in SPEED if curves.get(name)}
    if step_s := means.get("step_seconds"):
        phases = {phase: curves.get(f"{phase}_seconds", ()) for phase in PHASES}
        means |= {f"{phase}_share": _mean(points) / step_s for phase, points in phases.items() if points}
    return means


def _mean(points: Sequence[Point]) -> float:
    return sum(value for _, value in points) / len(points)


def curves_page(title: str, curves: Curves) -> str:
    """Draw one chart for each series over optimizer steps, in the order of `CURVES`, as an HTML page.

    Args:
        curves: series → (step, value), in order; without any, the page reports that there are none.
    """
    page = _HEAD.format(title=title)
    if not curves:
        return page + Markup("<p>Nothing to draw: no series has two points. Is the step switched off?</p>")
    names = sorted(curves, key=sort_key)[:MOST_CHARTS]
    page += Markup("<main>")
    for name in names:
        page += Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            escape(name), line_chart(curves[name])
        )
    left = len(curves) - len(names)
    more = f" {left} more are in the tracker." if left else ""
    return page + Markup("</main><p>Over optimizer steps.{}</p></body></html>\n").format(more)

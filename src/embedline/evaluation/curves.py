"""The course of a training as one small page for the pipelines UI: inline SVG, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from embedline.evaluation.charts import Point, line_chart

MOST_CHARTS = 9
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


def curves_page(title: str, curves: Mapping[str, Sequence[Point]]) -> str:
    """One chart a series over optimizer steps, the losses first; a sentence when there is none.

    Args:
        curves: series → (step, value), in order.
    """
    page = _HEAD.format(title=title)
    if not curves:
        return page + Markup("<p>Nothing to draw: no series has two points. Is the step switched off?</p>")
    names = sorted(curves, key=lambda name: (name != "loss", "loss" not in name, name))[:MOST_CHARTS]
    page += Markup("<main>")
    for name in names:
        page += Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(
            escape(name), line_chart(curves[name])
        )
    return page + Markup("</main><p>Over optimizer steps.</p></body></html>\n")

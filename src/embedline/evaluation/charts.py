"""Small charts as inline SVG. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 420, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 28

Point = tuple[float, float]


def line_chart(points: Sequence[Point], *, max_points: int = 300) -> Markup:
    """Draw one curve with both axes labelled; more than `max_points` points are averaged in groups."""
    if not points:
        return Markup("")
    smooth = _thinned(points, max_points)
    xs, ys = [x for x, _ in smooth], [y for _, y in smooth]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def position(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        _, y = position(left, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{tick:g}</text>')
    steps = sorted({left, right} | {t for t in nice_ticks(left, right) if left < t < 0.9 * right})
    for step in steps:
        x, _ = position(step, low)
        anchor = "end" if step == right and right > left else "middle"
        parts.append(f'<text class="tick {anchor}" x="{x:.1f}" y="{HEIGHT - 8}">{step:g}</text>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (position(*point) for point in smooth))
    parts.append(f'<polyline class="curve" points="{path}"/>')
    return _svg(parts, WIDTH, HEIGHT)


def bar_chart(bars: Sequence[tuple[Markup, float, bool]]) -> Markup:
    """Draw horizontal bars of values in 0..1.

    Args:
        bars: label (one `<tspan>` for each language), value, whether the bar is emphasised.
    """
    row, left, width = 30, 190, 760
    top = nice_ticks(0, max((value for _, value, _ in bars), default=1.0))[-1] or 1.0
    parts = []
    for number, (label, value, strong) in enumerate(bars):
        y = number * row
        length = max(0.0, value) / top * (width - left - 60)
        kind = "bar strong" if strong else "bar"
        parts.append(f'<text class="label end" x="{left - 10}" y="{y + 19}">{label}</text>')
        parts.append(f'<rect class="{kind}" x="{left}" y="{y + 5}" width="{length:.1f}" height="20" rx="2"/>')
        parts.append(f'<text class="value" x="{left + length + 8:.1f}" y="{y + 20}">{value:.3f}</text>')
    return _svg(parts, width, row * len(bars))


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    raw = span / count
    magnitude = 10 ** math.floor(math.log10(raw))
    size = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(i * size, 10) for i in range(first, max(last, first + 1) + 1)]


def _thinned(points: Sequence[Point], max_points: int) -> list[Point]:
    group = -(-len(points) // max_points)
    chunks = [points[i : i + group] for i in range(0, len(points), group)]
    return [(sum(x for x, _ in c) / len(c), sum(y for _, y in c) / len(c)) for c in chunks]


def _svg(parts: list[str], width: int, height: int) -> Markup:
    # safe: every part is made of numbers and of labels that are Markup already
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>')

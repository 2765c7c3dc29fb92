"""The curves of a step's training. They are kept with its outputs, so a run with a cache hit has them too."""

from __future__ import annotations

import json
from pathlib import Path

from embedline.artifacts.durable import write_json
from embedline.artifacts.tracker import SPOOL, read_spool

Curves = dict[str, list[tuple[float, float]]]
_FILE = "curves.json"
_MOST = 300  # points a series


def read_metric_series(step_folder: Path) -> Curves:
    """Read every metric that the step's tracker has more than once: (step, value) in order of steps."""
    series: dict[str, dict[float, float]] = {}
    for line in read_spool(step_folder / SPOOL):
        if line["type"] == "metric":
            series.setdefault(line["key"], {})[line["step"]] = line["value"]
    return {name: _thinned(sorted(points.items())) for name, points in series.items() if len(points) > 1}


def write_curves(step_folder: Path, curves: Curves) -> None:
    """Write the curves beside the step's record."""
    write_json(step_folder / _FILE, curves)


def read_curves(step_folder: Path) -> Curves:
    """Read the curves of a step; empty when it trained nothing, or when they are damaged."""
    try:
        kept = json.loads((step_folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: [(x, y) for x, y in points] for name, points in kept.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep at most 300 points, the first and the last among them."""
    every = -(-(len(points) - 1) // (_MOST - 1))
    return points if len(points) <= _MOST else [*points[:-1:every], points[-1]]

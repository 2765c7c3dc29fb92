"""The course of a step's training: kept with its outputs, so that a run that finds them has it, too."""

from __future__ import annotations

import json
from pathlib import Path

from embedline.artifacts.record import write_json
from embedline.artifacts.tracker import SPOOL, read_spool

Curves = dict[str, list[tuple[float, float]]]
_FILE = "curves.json"
_MOST = 300  # points a series


def heard(step_folder: Path) -> Curves:
    """Every metric that the step's tracker heard more than once: (step, value) in order of steps."""
    series: dict[str, dict[float, float]] = {}
    for line in read_spool(step_folder / SPOOL):
        if line["type"] == "metric":
            series.setdefault(line["key"], {})[line["step"]] = line["value"]
    return {name: _thinned(sorted(points.items())) for name, points in series.items() if len(points) > 1}


def write_curves(step_folder: Path, curves: Curves) -> None:
    write_json(step_folder / _FILE, curves)


def read_curves(step_folder: Path) -> Curves:
    """Empty for a step that trained nothing."""
    path = step_folder / _FILE
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {name: [(x, y) for x, y in points] for name, points in kept.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, the first and the last among them."""
    every = -(-(len(points) - 1) // (_MOST - 1))
    return points if len(points) <= _MOST else [*points[:-1:every], points[-1]]

"""run.json: what became of a run, put together from its steps' records and artefacts."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedline.artifacts.jsonl import read_jsonl
from embedline.artifacts.record import RECORD, StepRecord, write_json
from embedline.errors import InputError
from embedline.gate.policy import DENSE, Side
from embedline.steps.plan import PLAN

RUN = "run.json"
# In the order of the line; bm25 and untrained are what the stages are measured against.
STAGES = (
    "bm25",
    "untrained",
    "pretrain",
    "train_unsupervised",
    "train_supervised",
    "candidate",
    "base",
    "champion",
)


def begin_run(run_folder: Path, *, run: str, preset: str, pid: int = 0) -> None:
    """Say that a run is going on; `pid` is of the process that must live for it."""
    forget_records(run_folder)
    value = {"run": run, "preset": preset, "status": "running", "started": time.time(), "steps": []}
    write_json(run_folder / RUN, {**value, "pid": pid, "born": _born(pid), "host": platform.node()})


def forget_records(run_folder: Path) -> None:
    """A run started again under its name begins with clean records; its spools stay."""
    for record in run_folder.glob(f"steps/*/{RECORD}"):
        record.unlink()


def require_same_run(run_folder: Path, config: dict[str, Any]) -> None:
    """Refuse to take a run up again as another one: its curves and parameters would be of both.

    Raises:
        InputError: naming the settings that differ.
    """
    before = read_plan(run_folder).get("config", config)
    if before != config:
        differ = sorted(_changed(before, config))
        shown = ", ".join(differ[:5]) + (", …" if len(differ) > 5 else "")
        raise InputError(
            f"this run was begun with other settings ({shown}).",
            where=str(run_folder),
            fix="Give another name, or none.",
        )


def _changed(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """The keys at which two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {*one, *other}:
            yield from _changed(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    elif one != other:
        yield key


def read_run(run_folder: Path) -> dict[str, Any]:
    """run.json, or an empty record when there is none or it is damaged."""
    try:
        value: dict[str, Any] = json.loads((run_folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value


def is_abandoned(record: dict[str, Any]) -> bool:
    """Whether a run that says it is running has lost its process on this host."""
    if record.get("status") != "running" or not record.get("pid") or record.get("host") != platform.node():
        return False
    return _born(record["pid"]) != record.get("born")


def read_plan(run_folder: Path) -> dict[str, Any]:
    path = run_folder / PLAN
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value


def output_folder(records: list[StepRecord], step: str, output: str) -> Path | None:
    """Where a step's output lies; None when the step did not get that far or handed nothing on."""
    for record in records:
        if record.step == step and record.status == "done" and output in record.outputs:
            path = record.outputs[output].path
            return Path(path) if path else None
    return None


def verdict_of(records: list[StepRecord]) -> dict[str, Any]:
    return _json(output_folder(records, "gate", "verdict"), "verdict.json")


def promotion_of(records: list[StepRecord]) -> dict[str, Any]:
    return _json(output_folder(records, "promote", "promotion"), "promotion.json")


def stage_gains(records: list[StepRecord]) -> dict[str, dict[str, float]]:
    """nDCG@10 at full width by stage and held-out retrieval set; `mean` is over the sets all stages have."""
    folder = output_folder(records, "evaluate", "scores")
    if folder is None or not (folder / "scores.jsonl").is_file():
        return {}
    rows = read_jsonl(folder / "scores.jsonl")
    rows = [r for r in rows if r["kind"] == "retrieval" and r["main"] and r["runtime"] == "torch"]
    rows = [r for r in rows if (r.get("head") or "dense") == "dense"]
    gains: dict[str, dict[str, float]] = {}
    for model in STAGES:
        own = [row for row in rows if row["model"] == model]
        widest: dict[str, dict[str, Any]] = {}
        for row in own:
            kept = widest.get(row["set"])
            if kept is None or (row["dim"] or 0) > (kept["dim"] or 0):
                widest[row["set"]] = row
        if widest:
            gains[model] = {name: row["value"] for name, row in widest.items()}
    shared = set.intersection(*(set(sets) for sets in gains.values())) if gains else set()
    for sets in gains.values():
        if shared:
            sets["mean"] = sum(sets[name] for name in shared) / len(shared)
    return gains


def main_scores(folder: Path | None) -> dict[str, float]:
    """The candidate's main score of every evaluation set, at full width; other heads than dense by name.

    Args:
        folder: what evaluate left; None when it left nothing.
    """
    if folder is None or not (folder / "scores.jsonl").is_file():
        return {}
    return {
        score.set if score.head == DENSE else f"{score.set} ({score.head})": round(score.value, 6)
        for score in Side("candidate", read_jsonl(folder / "scores.jsonl")).scores
        if score.main and math.isfinite(score.value)
    }


def _json(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    value: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return value


def _born(pid: int) -> float | None:
    """When a living process was started; a number may be given to another process later."""
    import psutil

    try:
        process = psutil.Process(pid) if pid else None
        alive = process is not None and process.status() != psutil.STATUS_ZOMBIE
        return float(process.create_time()) if process is not None and alive else None
    except psutil.Error:
        return None


def point_latest(run_folder: Path) -> None:
    """`latest` beside the run's folder, exchanged in one move."""
    link(run_folder.parent / "latest", run_folder)


def link(place: Path, target: Path) -> None:
    """A relative symbolic link, so that the workspace can be moved; an older one is replaced in one move."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, place.parent))
    draft.replace(place)

"""run.json: what became of a run, put together from its steps' records and artefacts."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from embedline.artifacts.record import StepRecord, forget_records, write_json
from embedline.artifacts.run_folder import RUN


def begin_run(run_folder: Path, *, run: str, preset: str, pid: int = 0) -> None:
    """Say that a run is going on; `pid` is of the process that must live for it."""
    forget_records(run_folder)
    value = {"run": run, "preset": preset, "status": "running", "started": time.time(), "steps": []}
    write_json(run_folder / RUN, {**value, "pid": pid, "born": _born(pid), "host": platform.node()})


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


def _json(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    value: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return value


def point_latest(run_folder: Path) -> None:
    """`latest` beside the run's folder, exchanged in one move."""
    link(run_folder.parent / "latest", run_folder)


def link(place: Path, target: Path) -> None:
    """A relative symbolic link, so that the workspace can be moved; an older one is replaced in one move."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, place.parent))
    draft.replace(place)


def is_abandoned(record: dict[str, Any]) -> bool:
    """Whether a run that says it is running has lost its process on this host."""
    if record.get("status") != "running" or not record.get("pid") or record.get("host") != platform.node():
        return False
    return _born(record["pid"]) != record.get("born")


def _born(pid: int) -> float | None:
    """When a living process was started; a number may be given to another process later."""
    import psutil

    try:
        process = psutil.Process(pid) if pid else None
        alive = process is not None and process.status() != psutil.STATUS_ZOMBIE
        return float(process.create_time()) if process is not None and alive else None
    except psutil.Error:
        return None

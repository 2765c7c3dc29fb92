"""The files of a run's folder by name, and their readers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedline.artifacts.durable import write_json
from embedline.artifacts.record import StepRecord, located, movable
from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import FORMAT, Workspace

PLAN = "plan.json"
RUN = "run.json"
FINGERPRINT = "fingerprint.json"
_RESERVE = ".reserve"
_RESERVE_BYTES = 1_000_000


def read_plan(run_folder: Path) -> dict[str, Any]:
    """Read plan.json; empty for a run that was never planned, or when it is damaged."""
    try:
        value: dict[str, Any] = json.loads((run_folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if "slices" in value:  # the name in plan.json of earlier releases
        value["step_configs"] = value.pop("slices")
    return value


def read_run(run_folder: Path) -> RunRecord:
    """Read run.json; an empty record (no status) when there is none or it is damaged.

    Paths and addresses in the workspace are those of the place where it lies now.
    """
    try:
        value = json.loads((run_folder / RUN).read_text(encoding="utf-8"))
        written_as = value.pop("format", 1)
        record = RunRecord.model_validate(value)
    except (OSError, ValueError, AttributeError):
        return RunRecord()
    workspace = Workspace(run_folder.resolve().parent)
    return _with_places(
        record,
        [located(step, workspace) for step in record.steps],
        lambda uri: workspace.locate_uri(uri, written_as),
    )


def write_run(run_folder: Path, record: RunRecord) -> None:
    """Write run.json, which stays true when the workspace is moved."""
    workspace = Workspace(run_folder.resolve().parent)
    steps = [movable(step) for step in record.steps]
    kept = _with_places(record, steps, workspace.uri_reference)
    write_json(run_folder / RUN, {"format": FORMAT, **kept.as_json()})


def _with_places(record: RunRecord, steps: list[StepRecord], change: Callable[[str], str]) -> RunRecord:
    """Replace a record's steps and addresses; values that were not set stay so."""
    tracking, model = (
        {**value, "uri": change(value["uri"])} if value.get("uri") else value
        for value in (record.tracking, record.model)
    )
    changed = {"steps": steps, "tracking": tracking, "model": model}
    return record.model_copy(
        update={name: value for name, value in changed.items() if name in record.model_fields_set}
    )


def reserve_space(run_folder: Path) -> None:
    """Occupy space for the last records of a run, so that a full disk does not leave it running."""
    try:
        (run_folder / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))  # zeros may be compressed away
    except OSError:
        release_space(run_folder)
        raise


def release_space(run_folder: Path) -> None:
    """Give back the space that `reserve_space` occupied."""
    (run_folder / _RESERVE).unlink(missing_ok=True)


def read_fingerprint(run_folder: Path) -> dict[str, str]:
    """Read fingerprint.json: each part as a short string; empty for a run that has none yet."""
    try:
        values: dict[str, str] = json.loads((run_folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values

"""The files of a run's folder by name, and their readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedline.artifacts.record import write_json
from embedline.artifacts.run_record import RunRecord

PLAN = "plan.json"
RUN = "run.json"
FINGERPRINT = "fingerprint.json"


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
    """Read run.json; an empty record (no status) when there is none or it is damaged."""
    try:
        return RunRecord.model_validate_json((run_folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RunRecord()


def write_run(run_folder: Path, record: RunRecord) -> None:
    """Write run.json."""
    write_json(run_folder / RUN, record.as_json())


def read_fingerprint(run_folder: Path) -> dict[str, str]:
    """Read fingerprint.json: each part as a short string; empty for a run that has none yet."""
    try:
        values: dict[str, str] = json.loads((run_folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values

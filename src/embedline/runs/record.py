"""The record of a run (run.json): its beginning, and what its steps' records and artefacts hold."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from embedline.artifacts.manifest import read_artifact
from embedline.artifacts.record import StepRecord, forget_records
from embedline.artifacts.run_folder import reserve_space, write_run
from embedline.artifacts.run_record import RunRecord
from embedline.errors import InputError
from embedline.runs.process import process_mark

_log = logging.getLogger(__name__)


def begin_run(run_folder: Path, *, run: str, preset: str, pid: int = 0) -> None:
    """Write run.json as running, without the results of an earlier attempt.

    Args:
        pid: the process that the run depends on; 0 when there is none, as on a cluster.
    """
    forget_records(run_folder)
    (run_folder / "report.html").unlink(missing_ok=True)
    reserve_space(run_folder)
    mark = process_mark(pid)._asdict() if pid else {}
    record = RunRecord(run=run, preset=preset, status="running", started=time.time(), steps=[], **mark)
    write_run(run_folder, record)


def output_folder(records: list[StepRecord], step: str, output: str) -> Path | None:
    """Return the folder of a step's output; None when the step made none, or it is damaged by now."""
    for record in records:
        if record.step == step and record.status == "done" and output in record.outputs:
            made = record.outputs[output]
            if made.path is None:
                return None
            try:
                return read_artifact(Path(made.path), made.kind, digest=made.digest).path
            except InputError as error:
                _log.warning("%s", error)
                return None
    return None


def verdict_of(records: list[StepRecord]) -> dict[str, Any]:
    """Read the gate's verdict.json; empty without one."""
    return _json(output_folder(records, "gate", "verdict"), "verdict.json")


def promotion_of(records: list[StepRecord]) -> dict[str, Any]:
    """Read promotion.json; empty without one."""
    return _json(output_folder(records, "promote", "promotion"), "promotion.json")


def _json(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    value: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return value


def point_latest(run_folder: Path) -> None:
    """Point `latest`, beside the run's folder, at it."""
    link(run_folder.parent / "latest", run_folder)


def link(path: Path, target: Path) -> None:
    """Make a relative symbolic link, so that the workspace can be moved; replace an older one atomically."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(os.path.relpath(target, path.parent))
    draft.replace(path)

"""The record of a step: `record.json` in its folder, true at every moment.

In memory the paths of outputs are absolute, in files relative to the workspace.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from embedline.artifacts.durable import write_json
from embedline.artifacts.workspace import Workspace, output_reference

Status = Literal["running", "done", "failed", "killed"]
RECORD = "record.json"


class OutputRecord(BaseModel):
    """One output of a step; `path` is None when the step passed nothing through."""

    model_config = ConfigDict(extra="forbid")
    kind: str
    path: str | None
    digest: str | None


class StepRecord(BaseModel):
    """The record of one step; `final`: it failed in a way that a retry would not change."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    step: str
    status: Status
    key: str = ""
    cache_hit: bool = False
    passed_through: bool = Field(False, validation_alias=AliasChoices("passed_through", "handed_on"))
    started_at: float = 0.0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    outputs: dict[str, OutputRecord] = {}
    metrics: dict[str, float] = {}
    summary: str = ""
    error: str = ""
    exit_code: int = 0
    final: bool = False
    pid: int = 0


def write_record(step_folder: Path, record: StepRecord) -> None:
    """Write a step's record into its folder."""
    write_json(step_folder / RECORD, movable(record).model_dump())


def movable(record: StepRecord) -> StepRecord:
    """Return a record as files keep it: with paths relative to the workspace."""
    return _with_paths(record, lambda path: output_reference(Path(path)))


def located(record: StepRecord, workspace: Workspace) -> StepRecord:
    """Return a record of a file with absolute paths."""
    return _with_paths(record, lambda path: str(workspace.locate_output(path)))


def _with_paths(record: StepRecord, change: Callable[[str], str]) -> StepRecord:
    outputs = {
        name: output.model_copy(update={"path": change(output.path) if output.path else None})
        for name, output in record.outputs.items()
    }
    return record.model_copy(update={"outputs": outputs})


def read_records(run_folder: Path) -> list[StepRecord]:
    """Read the records of a run's steps, in the order in which they started; a damaged one as failed."""
    records = [read_record(file.parent) for file in (run_folder / "steps").glob(f"*/{RECORD}")]
    return sorted((record for record in records if record), key=lambda record: record.started_at)


def read_record(step_folder: Path) -> StepRecord | None:
    """Read a step's record: None before the step began, and a failure when the record is damaged."""
    file = step_folder / RECORD
    try:
        record = StepRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        message = f"{file} is damaged. Start the run again: what the step made is found by its key."
        return StepRecord(step=step_folder.name, status="failed", error=message, exit_code=1)
    return located(record, Workspace(step_folder.resolve().parents[2]))


def forget_records(run_folder: Path) -> None:
    """Remove the records of a run that begins again under its name; its spools stay."""
    for record in run_folder.glob(f"steps/*/{RECORD}"):
        record.unlink()

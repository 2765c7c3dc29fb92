"""Earlier outputs by step key: `.embedline/index/<step>/<key>.json`, read by plans and by later runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from embedline.artifacts.checked_json import read_checked_json, write_checked_json
from embedline.artifacts.record import StepRecord
from embedline.artifacts.workspace import Workspace
from embedline.dag import Step


class KeyNote(BaseModel):
    """The outcome of one key.

    Args:
        passed_through: the step was switched off and passed an input on by reference.
        outputs: digests by output name; None where nothing was passed through.
        summary: the step's Markdown.
    """

    passed_through: bool
    outputs: dict[str, str | None]
    summary: str = ""


def note_key(workspace: Workspace, step: Step, record: StepRecord) -> None:
    """Record the outputs of the record's key, so that a plan can predict what the next run finds."""
    digests = {name: output.digest for name, output in record.outputs.items()}
    note = KeyNote(passed_through=record.passed_through, outputs=digests, summary=record.summary)
    write_checked_json(_path(workspace, step, record.key), note.model_dump())


def read_key_note(workspace: Workspace, step: Step, key: str) -> KeyNote | None:
    """Return the earlier outputs of `key`; None when it was never made here, or the note is damaged."""
    try:
        return KeyNote.model_validate(read_checked_json(_path(workspace, step, key)))
    except (OSError, ValueError):
        return None


def _path(workspace: Workspace, step: Step, key: str) -> Path:
    return workspace.internal / "index" / step.name / f"{key}.json"

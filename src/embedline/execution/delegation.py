"""A step's work handed over to other processes, here or on other machines.

What they need lies in the workspace, `<run>/steps/<step>/delegated/`: its config and the references of the
inputs. They leave their result in the store, under the step's key, and a record of how they ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedline.artifacts.record import RECORD, StepRecord, write_json
from embedline.artifacts.workspace import Workspace
from embedline.errors import EmbedlineError, StepError, Stopped

_ABOUT = "delegated.json"


@dataclass(frozen=True)
class DelegatedStep:
    """One step to be done by others.

    Args:
        inputs: name → the file of a reference.
    """

    step: str
    key: str
    run: str
    workspace: Path
    config_json: str
    inputs: dict[str, Path]

    @property
    def folder(self) -> Path:
        return Workspace(self.workspace).step_folder(self.run, self.step) / "delegated"

    def write(self) -> None:
        """Lay it down for the others; how an earlier attempt ended is forgotten."""
        shutil.rmtree(self.folder, ignore_errors=True)
        names = sorted(self.inputs)
        for name in names:
            write_json(self._reference(name), json.loads(self.inputs[name].read_text(encoding="utf-8")))
        about = {"step": self.step, "key": self.key, "run": self.run, "inputs": names}
        write_json(self.folder / _ABOUT, {**about, "config": self.config_json})

    def _reference(self, name: str) -> Path:
        return self.folder / "inputs" / f"{name}.json"

    def output(self, name: str) -> Path:
        """Where those who work write the reference of an output."""
        return self.folder / "outputs" / f"{name}.json"

    def record(self) -> StepRecord | None:
        """How the first of those who worked ended, or stands; None before it began."""
        path = self.folder / RECORD
        return StepRecord.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None

    @property
    def peak_memory_mb(self) -> float:
        """Of the first process."""
        record = self.record()
        return record.peak_memory_mb if record else 0.0

    def raise_failure(self) -> None:
        """End as the first of those who worked did, where it did not end well.

        Raises:
            EmbedlineError: its own words and exit code; final where its failure was.
            Stopped: it was stopped by SIGTERM.
        """
        record = self.record()
        if record is None or record.status in {"running", "done"}:
            return
        if record.status == "killed":
            raise Stopped(record.error)
        error = (StepError if record.final else EmbedlineError)(record.error)
        error.exit_code = record.exit_code
        raise error


# Does the work of a step somewhere else; returns when the result is in the store.
Delegate = Callable[[DelegatedStep], None]


def read_delegated_step(folder: Path) -> DelegatedStep:
    """What `DelegatedStep.write` left in a workspace, wherever that is mounted now."""
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    inputs = {name: folder / "inputs" / f"{name}.json" for name in about["inputs"]}
    # <workspace>/<run>/steps/<step>/delegated
    return DelegatedStep(
        about["step"], about["key"], about["run"], folder.parents[3], about["config"], inputs
    )

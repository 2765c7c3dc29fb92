"""Delegation of a step's work to worker processes, on this machine or on others.

The workers read the step's config and the references of its inputs from the workspace, in
`<run>/steps/<step>/delegated/`. They leave the outputs in the store under the step's key, and the first
worker's record in that folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedline.artifacts.durable import write_json
from embedline.artifacts.record import StepRecord, read_record
from embedline.artifacts.workspace import Workspace
from embedline.errors import EmbedlineError, StepError, Stopped

_ABOUT = "delegated.json"


@dataclass(frozen=True)
class DelegatedStep:
    """One step that worker processes do.

    Args:
        inputs: input name → path of its reference.
    """

    step: str
    key: str
    run: str
    workspace: Path
    config_json: str
    inputs: dict[str, Path]

    @property
    def folder(self) -> Path:
        """Folder where the workers read the step and write their record."""
        return Workspace(self.workspace).step_folder(self.run, self.step) / "delegated"

    def write(self) -> None:
        """Write the step for the workers, without the record of an earlier attempt."""
        shutil.rmtree(self.folder, ignore_errors=True)
        names = sorted(self.inputs)
        for name in names:
            write_json(self._reference(name), json.loads(self.inputs[name].read_text(encoding="utf-8")))
        about = {"step": self.step, "key": self.key, "run": self.run, "inputs": names}
        write_json(self.folder / _ABOUT, {**about, "config": self.config_json})

    def _reference(self, name: str) -> Path:
        return self.folder / "inputs" / f"{name}.json"

    def output(self, name: str) -> Path:
        """Return the path where the workers write the reference of an output."""
        return self.folder / "outputs" / f"{name}.json"

    def record(self) -> StepRecord | None:
        """Read the first worker's record; None before it began."""
        return read_record(self.folder)

    @property
    def peak_memory_mb(self) -> float:
        """Peak memory of the first worker."""
        record = self.record()
        return record.peak_memory_mb if record else 0.0

    def raise_failure(self) -> None:
        """Raise the first worker's error, when it has one.

        Raises:
            EmbedlineError: with the worker's message and exit code; a StepError where no retry would help.
            Stopped: SIGTERM stopped the worker.
        """
        record = self.record()
        if record is None or record.status in {"running", "done"}:
            return
        if record.status == "killed":
            raise Stopped(record.error)
        error = (StepError if record.final else EmbedlineError)(record.error)
        error.exit_code = record.exit_code
        raise error


# Runs a step in worker processes; returns when its outputs are in the store.
Delegate = Callable[[DelegatedStep], None]


def read_delegated_step(folder: Path) -> DelegatedStep:
    """Read what `DelegatedStep.write` wrote; the workspace may be mounted at another path."""
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    inputs = {name: folder / "inputs" / f"{name}.json" for name in about["inputs"]}
    # <workspace>/<run>/steps/<step>/delegated
    return DelegatedStep(
        about["step"], about["key"], about["run"], folder.parents[3], about["config"], inputs
    )

"""The input of a step (`Context`) and its result (`StepResult`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from embedline.artifacts.manifest import Artifact, folder_digest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.partial import build, merge
from embedline.config.schema import RunConfig
from embedline.errors import InputError, StepError

T = TypeVar("T")


class StepConfig(BaseModel):
    """The settings and pins of one step, made by preflight; a JSON string parameter.

    Args:
        config: settings that decide the step's outputs, by section (`data.sources`); part of its key.
        unkeyed: settings that change no output (threads, how often a training logs).
        pins: digests of outside things; part of the key.
        locations: where those things lie on this machine; in JSON, references of the workspace.
        train_job: the section of that name, for steps that several nodes can share.
    """

    config: dict[str, Any]
    unkeyed: dict[str, Any] = {}
    pins: dict[str, Any] = {}
    locations: dict[str, Any] = {}
    train_job: dict[str, Any] = {}

    def located(self, workspace: Workspace) -> StepConfig:
        """Return it with the paths of its locations in the workspace as it lies now."""
        paths = {name: str(workspace.locate(str(kept))) for name, kept in self.locations.items()}
        return self.model_copy(update={"locations": paths})

    def section(self, name: str, kind: type[T]) -> T:
        """Return a section of the config, or a part of one (`data.corpus`), with the schema's types.

        Settings that dag.py does not declare for the step are absent: reading one raises an AttributeError.
        """
        annotation: Any = RunConfig
        for part in name.split("."):
            annotation = annotation.model_fields[part].annotation
        found: T = build(annotation, merge(self.config.get(name), self.unkeyed.get(name)))
        return found


@dataclass(frozen=True)
class Context:
    """The inputs, settings and folders of a step.

    Args:
        draft: folder below which it writes its outputs.
    """

    step: str
    key: str
    step_config: StepConfig
    inputs: dict[str, Artifact | None]
    workspace: Workspace
    run: str
    tracker: Tracker
    draft: Path

    def artifact(self, name: str) -> Artifact:
        """Return an input.

        Raises:
            StepError: the step before passed nothing through.
        """
        found = self.inputs[name]
        if found is None:
            raise StepError(f"its input {name!r} is empty.", where=f"step {self.step}")
        return found

    def output(self, name: str) -> Path:
        """Return the folder to write the output `name` into."""
        folder = self.draft / name
        folder.mkdir(exist_ok=True)
        return folder

    def outside(self, role: str) -> Path:
        """Return the folder of a pinned input from outside (base, teacher, mteb), unchanged since preflight.

        Raises:
            InputError: its content has another digest than the pin.
        """
        folder, pin = Path(str(self.step_config.locations[role])), self.step_config.pins.get(role)
        if pin is not None and (found := folder_digest(folder)) != pin:
            raise InputError(
                f"the input {role} has changed since the run was planned: digest {found}, planned {pin}.",
                where=str(folder),
                fix="Start the run again: preflight reads it anew.",
            )
        return folder

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of the step's training, for every run with this key."""
        return self.workspace.checkpoints(self.step, self.key)

    @property
    def bad_batches(self) -> Path:
        """Folder of the batches without a finite loss; it is kept longer than the checkpoints."""
        return self.workspace.step_folder(self.run, self.step) / "bad-steps"


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Args:
        metrics: numbers for the tracker and for the pipelines UI.
        summary: Markdown for the pipelines UI and the report.
        counts, metadata: by output name, for the manifests.
        passed_through: outputs that are an input (or nothing) by reference: the step is switched off.
        curves: of its training; `execute` reads them from the tracker's spool.
        reused: of steps that keep parts in the store: whether every part was found there.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    summary: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed_through: dict[str, Artifact | None] = field(default_factory=dict)
    reused: bool = False
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

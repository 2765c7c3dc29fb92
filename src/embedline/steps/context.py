"""What a step sees (`Context`) and what it says (`StepResult`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from embedline.artifacts.manifest import Artifact
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.errors import StepError

T = TypeVar("T")


class StepConfig(BaseModel):
    """What preflight hands to one step, as a JSON string parameter.

    `config` (the step's own sections) and `pins` (digests of outside things) are part of its key;
    `locations` (where those things lie on this machine) and `train_job` (the section of that name, for the
    steps that can be shared by several nodes) are not.
    """

    config: dict[str, Any]
    pins: dict[str, Any] = {}
    locations: dict[str, Any] = {}
    train_job: dict[str, Any] = {}

    def section(self, name: str, kind: type[T]) -> T:
        """A section of the config (or a part of one, `data.corpus`), typed as the schema types it."""
        first, *rest = name.split(".")
        annotation: Any = RunConfig.model_fields[first].annotation
        for part in rest:
            annotation = annotation.model_fields[part].annotation
        found: T = TypeAdapter(annotation).validate_python(self.config[name])
        return found


@dataclass(frozen=True)
class Context:
    """Everything a step may touch."""

    step: str
    key: str
    step_config: StepConfig
    inputs: dict[str, Artifact | None]
    workspace: Workspace
    run: str
    tracker: Tracker
    draft: Path

    def artifact(self, name: str) -> Artifact:
        """An input that must be there."""
        found = self.inputs[name]
        if found is None:
            raise StepError(f"its input {name!r} is empty.", where=f"step {self.step}")
        return found

    def output(self, name: str) -> Path:
        """The folder to write the output `name` into."""
        folder = self.draft / name
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoints(self) -> Path:
        return self.workspace.checkpoints(self.step, self.key)

    @property
    def evidence(self) -> Path:
        """Where batches are kept that gave no finite loss; they outlive the checkpoints."""
        return self.workspace.step_folder(self.run, self.step) / "bad-steps"


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Args:
        metrics: numbers for the tracker and for the pipelines UI.
        summary: Markdown for the pipelines UI and the report.
        counts, metadata: by output name, for the manifests.
        passed_through: outputs that are an input (or nothing) by reference, because the step is switched off.
        curves: the course of its training; filled in from what its tracker heard.
        reused: set by steps that keep parts in the store: true when every part was found there.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    summary: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed_through: dict[str, Artifact | None] = field(default_factory=dict)
    reused: bool = False
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

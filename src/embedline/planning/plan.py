"""The plan of a run: what each step will do, with the cache hits that can be predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from embedline.artifacts.durable import write_json
from embedline.artifacts.run_folder import PLAN
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS, Step
from embedline.execution.execute import step_key
from embedline.execution.key_index import read_key_note
from embedline.markdown import cell, table
from embedline.planning.cost_table import minutes
from embedline.steps.context import StepConfig

Action = Literal["cached", "passed through", "runs", "acts"]


@dataclass(frozen=True)
class PlannedStep:
    """The plan of one step.

    Args:
        action: cached (its outputs are in the store), passed through (the step is switched off), runs, or
            acts (it runs every time).
        key: the key of its outputs; None while an input is not made yet.
        seconds: what it is expected to take here: estimated from the measured speed of this machine, or its
            time when it last ran for this preset in this workspace.
    """

    step: str
    action: Action
    key: str | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """A validated run: its config, each step's config (JSON) and what each step will do.

    Args:
        machine: what the planning process may use of its machine; the steps of a cluster have other pods.
    """

    run: str
    preset: str
    name: str
    config: dict[str, Any]
    pins: dict[str, Any]
    step_configs: dict[str, str]
    steps: list[PlannedStep]
    warnings: list[str]
    machine: str = ""

    def write(self, run_folder: Path) -> None:
        """Write plan.json."""
        write_json(run_folder / PLAN, asdict(self))

    def base(self, workspace: Workspace) -> Path | None:
        """Return the folder of the base model on this machine; None when the run starts from scratch."""
        found = StepConfig.model_validate_json(self.step_configs["prune_before"]).locations.get("base")
        return workspace.locate(found) if found else None

    def markdown(self) -> str:
        """Return the plan as Markdown, for the pipelines UI."""
        rows = [[step.step, step.action, _duration(step)] for step in self.steps]
        notes = [f"- note: {cell(warning)}" for warning in self.warnings]
        head = f"Run **{cell(self.run)}** of **{cell(self.name)}**."
        return "\n".join([head, "", table(["step", "what it does", "time"], rows), "", *notes]) + "\n"

    def table(self) -> str:
        """Return the plan as plain lines."""
        lines = [f"{step.step:<20}{step.action:<12}{_duration(step)}".rstrip() for step in self.steps]
        known = [step.seconds for step in self.steps if step.action in {"runs", "acts"}]
        seconds = [s for s in known if s is not None]
        if seconds:
            missing = "" if len(seconds) == len(known) else f", {len(known) - len(seconds)} steps not counted"
            lines.append(f"about {minutes(sum(seconds))} here{missing}")
        lines += [f"this machine: {self.machine}"] if self.machine else []
        return "\n".join([*lines, *(f"note: {warning}" for warning in self.warnings)])


def _duration(step: PlannedStep) -> str:
    works = step.seconds is not None and step.action in {"runs", "acts"}
    return f"about {minutes(step.seconds or 0.0)}" if works else ""


def predict_steps(
    workspace: Workspace,
    preset: str,
    step_configs: dict[str, str],
    estimated: Mapping[str, float] | None = None,
) -> list[PlannedStep]:
    """Predict what each step does: keys are followed as far as the outputs before them are known.

    Args:
        estimated: seconds of the steps. The last time of a step that does not train is better than that.
    """
    known: dict[str, str | None] = {}
    estimated, last = estimated or {}, _last_times(workspace, preset)
    by_work = {name for name in estimated if STEPS[name].trains or STEPS[name].module == "prune"}
    times = {**estimated, **{name: time for name, time in last.items() if name not in by_work}}
    planned = []
    for name, step in STEPS.items():
        feeds = step.inputs
        key, action = None, "runs" if step.cached else "acts"
        if all(source in known for source in feeds.values()):
            inputs = {given: known[source] for given, source in feeds.items()}
            key = step_key(step, StepConfig.model_validate_json(step_configs[name]), inputs)
            found = _outcome(workspace, step, key)
            if found is not None:
                action, digests = found
                known |= {f"{name}.{output}": digest for output, digest in digests.items()}
        planned.append(PlannedStep(name, action, key, times.get(name)))  # type: ignore[arg-type]
    return planned


def _outcome(workspace: Workspace, step: Step, key: str) -> tuple[Action, dict[str, str | None]] | None:
    note = read_key_note(workspace, step, key)
    if note is not None and note.passed_through:
        return "passed through", note.outputs
    if not step.cached:
        return ("acts", note.outputs) if note else None
    found = workspace.store.find(step.name, key, step.outputs)
    return ("cached", {name: artifact.digest for name, artifact in found.items()}) if found else None


def _last_times(workspace: Workspace, preset: str) -> dict[str, float]:
    """Return the seconds of each step's last run, from the records of this workspace."""
    times: dict[str, float] = {}
    for file in sorted(workspace.root.glob("*/run.json"), key=lambda path: path.stat().st_mtime):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if file.parent.is_symlink() or record.get("preset") != preset:
            continue
        for step in record.get("steps", []):
            if step["status"] == "done" and not step["cache_hit"]:
                times[step["step"]] = step["seconds"]
    return times

"""A rerun of one step of an earlier run, or of the gate's decision alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from embedline.artifacts.manifest import Artifact, read_artifact
from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.reference import write_reference
from embedline.artifacts.run_folder import read_plan
from embedline.artifacts.workspace import Workspace
from embedline.config.gate import GateConfig
from embedline.config.load import overridden
from embedline.dag import STEPS
from embedline.errors import InputError
from embedline.execution.execute import execute
from embedline.execution.torchrun import processes_here
from embedline.gate.decision import Verdict
from embedline.quoting import command_line
from embedline.steps.context import StepConfig


def rerun_step(workspace: Workspace, run: str, name: str) -> StepRecord:
    """Run one step of a run again in this process, on the outputs of the steps before it.

    The store is used as in a run: the step works only when its code, settings or inputs changed. The run's
    records stay as they are; the outputs lie in the store, where the run finds them when it is continued.

    Raises:
        InputError: no such step, or the run lacks one of its inputs.
        EmbedlineError: the step failed.
    """
    folder = workspace.run_folder(run)
    plan = read_plan(folder)
    if name not in STEPS:
        raise InputError(f"there is no step {name!r}.", fix=f"Known: {', '.join(STEPS)}.")
    if not plan:
        raise InputError("this run has no plan: it never started.", where=str(folder))
    inputs = _inputs(folder, name)
    with tempfile.TemporaryDirectory(prefix="embedline-step-") as scratch:
        given = {key: Path(scratch) / f"in-{key}" for key in STEPS[name].inputs}
        for key, artifact in inputs.items():
            write_reference(workspace, given[key], STEPS[name].input_kinds[key], artifact)
        return execute(
            name,
            config_json=plan["step_configs"][name],
            workspace=workspace,
            run=run,
            inputs=given,
            outputs={key: Path(scratch) / f"out-{key}" for key in STEPS[name].outputs},
            delegate=processes_here(name, plan["step_configs"][name], workspace.root),
            record_in=Path(scratch),
        )


def rerun_gate(workspace: Workspace, run: str, overrides: Sequence[str]) -> Verdict:
    """Decide on a run's scores with its own gate settings and `gate.key=value` overrides. Writes nothing.

    Raises:
        InputError: the run was not scored, or an override is not about the gate.
    """
    from embedline.steps.gate import decide_on

    folder = workspace.run_folder(run)
    plan = read_plan(folder)
    if not plan:
        raise InputError("this run has no plan: it never started.", where=str(folder))
    for override in overrides:
        if not override.startswith("gate."):
            raise InputError(f"override {override!r} is not about the gate.", fix="Write gate.key=value.")
    config: GateConfig = overridden(plan["config"], overrides, where=str(folder)).gate
    champion = StepConfig.model_validate_json(plan["step_configs"]["gate"]).pins.get("champion")
    return decide_on(_inputs(folder, "gate"), config, champion)


def _inputs(folder: Path, name: str) -> dict[str, Artifact | None]:
    """Open the inputs of a step from the records of the steps before it."""
    records = {record.step: record for record in read_records(folder)}
    found: dict[str, Artifact | None] = {}
    for key, source in STEPS[name].inputs.items():
        step, _, output = source.partition(".")
        record = records.get(step)
        if record is None or record.status != "done":
            raise InputError(
                f"needs what {step} makes, and that is not done.",
                where=f"step {name} of {folder.name}",
                fix=f"embedline run … {command_line('--name', folder.name)} resumes it where it stopped.",
            )
        made = record.outputs[output]
        found[key] = read_artifact(Path(made.path), made.kind, digest=made.digest) if made.path else None
    return found

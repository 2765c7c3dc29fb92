"""One step of a run that was made before: done again, or, of the gate, only decided again."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from embedline.artifacts.manifest import Artifact, read_artifact
from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import read_plan
from embedline.artifacts.workspace import Workspace
from embedline.config.gate import GateConfig
from embedline.config.load import overridden
from embedline.dag import STEPS
from embedline.errors import InputError
from embedline.execution.execute import execute, write_reference
from embedline.execution.torchrun import processes_here
from embedline.gate.decision import Verdict
from embedline.steps.context import StepConfig


def step_again(place: Workspace, run: str, name: str) -> StepRecord:
    """Do one step of a run again in this process, on what the steps before it made.

    What was made under the same key is found, as in a run: a step works again when its code or its inputs
    are others than before. The run's own records stay as they are; what comes out lies in the store, where
    the run finds it when it is taken up again.

    Raises:
        InputError: no such step, or the run has not what goes into it.
        EmbedlineError: whatever the step could not do.
    """
    folder = place.run_folder(run)
    plan = read_plan(folder)
    if name not in STEPS:
        raise InputError(f"there is no step {name!r}.", fix=f"Known: {', '.join(STEPS)}.")
    if not plan:
        raise InputError("this run has no plan: it never began.", where=str(folder))
    inputs = _inputs(folder, name)
    with tempfile.TemporaryDirectory(prefix="embedline-step-") as scratch:
        given = {key: Path(scratch) / f"in-{key}" for key in STEPS[name].inputs}
        for key, artifact in inputs.items():
            write_reference(place, given[key], STEPS[name].input_kinds[key], artifact)
        return execute(
            name,
            config_json=plan["step_configs"][name],
            workspace=place.root,
            run=run,
            inputs=given,
            outputs={key: Path(scratch) / f"out-{key}" for key in STEPS[name].outputs},
            delegate=processes_here(name, plan["step_configs"][name], place.root),
            record_in=Path(scratch),
        )


def decide_again(place: Workspace, run: str, overrides: Sequence[str]) -> Verdict:
    """The verdict on a run's scores under the settings it had, or `gate.key=value` on top. Writes nothing.

    Raises:
        InputError: the run was not scored, or a setting is none of the gate's.
    """
    from embedline.steps.gate import decide_on

    folder = place.run_folder(run)
    plan = read_plan(folder)
    if not plan:
        raise InputError("this run has no plan: it never began.", where=str(folder))
    for override in overrides:
        if not override.startswith("gate."):
            raise InputError(f"override {override!r} is not about the gate.", fix="Write gate.key=value.")
    config: GateConfig = overridden(plan["config"], overrides, where=str(folder)).gate
    champion = StepConfig.model_validate_json(plan["step_configs"]["gate"]).pins.get("champion")
    return decide_on(_inputs(folder, "gate"), config, champion)


def _inputs(folder: Path, name: str) -> dict[str, Artifact | None]:
    """What goes into a step, from the records of the steps before it."""
    records = {record.step: record for record in read_records(folder)}
    found: dict[str, Artifact | None] = {}
    for key, source in STEPS[name].inputs.items():
        step, _, output = source.partition(".")
        record = records.get(step)
        if record is None or record.status != "done":
            raise InputError(
                f"needs what {step} makes, and that is not done.",
                where=f"step {name} of {folder.name}",
                fix=f"embedline run … --name {folder.name} goes on where the run stopped.",
            )
        made = record.outputs[output]
        found[key] = read_artifact(Path(made.path), made.kind) if made.path else None
    return found

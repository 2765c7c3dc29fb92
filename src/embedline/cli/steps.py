"""The commands `step`, `gate` and `clean-up`: one step or verdict of a run again, and free disk space."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from embedline.artifacts.workspace import Workspace
from embedline.cli.shared import NO_OVERRIDES, WORK, AsJson, Debug, Overrides, Run, Work, command, show
from embedline.cli.work_folder import run_folder
from embedline.evaluation.reasons import verdict_json
from embedline.gate.outcome import Outcome
from embedline.orchestration.outcome import reason_lines, verdict_words
from embedline.runs.abandoned import close_abandoned, run_lock
from embedline.runs.rerun import rerun_gate, rerun_step
from embedline.runs.retention import find_removals, remove


@command
def step(
    name: Annotated[str, typer.Argument(metavar="STEP", help="The step, as `embedline plan` lists it.")],
    run: Run = Path("latest"),
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Rerun one step of a run in this process, on the outputs of the steps before it.

    If neither its code nor its inputs have changed, the cached outputs are reused. Later steps are not rerun:
    `embedline run PRESET --name RUN` does that.
    """
    folder = run_folder(run, work)
    with run_lock(folder):
        record = rerun_step(Workspace(folder.parent), folder.name, name)
    if as_json:
        show(record.model_dump())
        return
    outcome = "cached" if record.cache_hit else "switched off" if record.passed_through else "done"
    typer.echo(f"{name}: {outcome} in {record.seconds:.1f} s")
    if record.summary:
        typer.echo(record.summary.rstrip())
    for output, made in record.outputs.items():
        typer.echo(f"{output}: {made.path or 'nothing'}")


@command
def gate(
    run: Run = Path("latest"),
    work: Work = WORK,
    overrides: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Print the gate's decision on a run's scores, also with other settings (-o gate.KEY=VALUE).

    Nothing is written or promoted. Exit code 0: the model passes, or is not judged (no evaluation set, no
    rule, or gate.mode: off). Exit code 3: the gate refuses it.
    """
    folder = run_folder(run, work)
    verdict = rerun_gate(Workspace(folder.parent), folder.name, overrides)
    content = verdict_json(verdict)
    if as_json:
        show(content)
    else:
        typer.echo(f"gate: {verdict_words(content)}")
        for line in reason_lines(content):
            typer.echo(f"  {line}")
    return 3 if verdict.outcome is Outcome.REFUSED and not verdict.already_champion else 0


@command
def clean_up(
    work: Work = WORK,
    keep: Annotated[int, typer.Option(min=0, help="Number of newest runs to keep.")] = 10,
    grace: Annotated[
        float, typer.Option(min=0, help="Keep everything that was changed within so many hours.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove old runs, and the artefacts and checkpoints that no remaining run uses.

    Registered versions and the tracking server's records stay.
    """
    close_abandoned(work)
    removals = find_removals(Workspace(work), keep, grace_s=grace * 3600)
    if not dry_run:
        remove(removals)
    size = sum(removal.size for removal in removals)
    if as_json:
        rows = [{**dataclasses.asdict(removal), "path": str(removal.path)} for removal in removals]
        show({"removed": not dry_run, "bytes": size, "items": rows})
        return
    for removal in removals:
        typer.echo(f"{removal.what:<12}{removal.size / 1e6:>10.1f} MB  {removal.path}")
    verb = "would be freed" if dry_run else "freed"
    typer.echo(f"{size / 1e6:.1f} MB {verb}" if removals else "nothing to remove")

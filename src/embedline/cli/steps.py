"""step, gate, clean-up: one step of a run again, its verdict under other settings, and room on the disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Overrides, Run, Work, command, run_folder, show


@command
def step(
    name: Annotated[str, typer.Argument(help="The step, as `embedline plan` lists it.")],
    run: Run = Path("latest"),
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Do one step of a run again, in this process, on what the steps before it made.

    It works again when its code or its inputs have changed since, else what it made is found. The steps after
    it are not done: `embedline run PRESET --name RUN` does those.
    """
    from embedline.artifacts.workspace import Workspace
    from embedline.orchestration.local import run_lock
    from embedline.runs.rerun import rerun_step

    folder = run_folder(run, work)
    with run_lock(folder):
        record = rerun_step(Workspace(folder.parent), folder.name, name)
    if as_json:
        show(record.model_dump())
        return
    did = "found" if record.cache_hit else "switched off" if record.passed_through else "done"
    typer.echo(f"{name}: {did} in {record.seconds:.1f} s")
    if record.summary:
        typer.echo(record.summary.rstrip())
    for output, made in record.outputs.items():
        typer.echo(f"{output}: {made.path or 'nothing'}")


@command
def gate(
    run: Run = Path("latest"),
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Say how the gate decides on a run's scores, also under other settings (-o gate.KEY=VALUE): 3 refused.

    Nothing is written or promoted.
    """
    from embedline.artifacts.workspace import Workspace
    from embedline.orchestration.outcome import verdict_words
    from embedline.runs.rerun import rerun_gate

    folder = run_folder(run, work)
    verdict = rerun_gate(Workspace(folder.parent), folder.name, overrides)
    if as_json:
        show(verdict.as_dict())
    else:
        typer.echo(f"gate: {verdict_words(verdict.as_dict())}")
        for reason in verdict.reasons:
            typer.echo(f"  {'✓' if reason.passed else '✗'} {reason.text}")
    return 0 if verdict.passed or verdict.already_champion else 3


@command
def clean_up(
    work: Work = WORK,
    keep: Annotated[int, typer.Option(min=0, help="Newest runs that stay as they are.")] = 10,
    grace: Annotated[
        float, typer.Option(min=0, help="Hours within which nothing that was touched is removed.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Remove old runs, and the artefacts, checkpoints and drafts that no run which stays refers to.

    Registered versions and the tracking server's records stay.
    """
    from embedline.artifacts.workspace import Workspace
    from embedline.runs.retention import find_removals, remove

    found = find_removals(Workspace(work), keep, grace_s=grace * 3600)
    if not dry_run:
        remove(found)
    size = sum(removal.size for removal in found)
    if as_json:
        rows = [{**dataclasses.asdict(removal), "path": str(removal.path)} for removal in found]
        show({"removed": not dry_run, "bytes": size, "items": rows})
        return
    for removal in found:
        typer.echo(f"{removal.what:<12}{removal.size / 1e6:>10.1f} MB  {removal.path}")
    verb = "would be freed" if dry_run else "freed"
    typer.echo(f"{size / 1e6:.1f} MB {verb}" if found else "nothing to remove")

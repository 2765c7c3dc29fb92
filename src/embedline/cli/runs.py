"""init, plan, run: from a first preset file to a finished run."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Overrides,
    Preset,
    Work,
    absolute_preset,
    command,
    note,
    show,
    wide_console,
)
from embedline.cli.starter import write_starter
from embedline.errors import InputError


@command
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; made when it is not there.")],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a preset and a three-line data file to start from."""
    written = write_starter(folder)
    preset = written[0]
    if as_json:
        show({"files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo("Put your own rows into the data file, then:")
    typer.echo(f"  embedline plan {preset}")
    typer.echo(f"  embedline run {preset}")


@command
def plan(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Validate a preset, pin what it depends on and show what a run would do."""
    from embedline.steps.preflight import make_plan

    made = make_plan(absolute_preset(preset), overrides, work)
    if as_json:
        show({**dataclasses.asdict(made), "slices": None})
    else:
        typer.echo(made.table())


@command
def run(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006
    name: Annotated[
        str, typer.Option(help="Name of the run's folder; one that exists is taken up again.")
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Run the whole line here: 0 passed or already champion, 3 refused, 2 bad input, 1 a step failed."""
    from embedline.config.load import load_config
    from embedline.orchestration.local import new_run, run_here
    from embedline.orchestration.progress import Progress
    from embedline.steps.requirements import check_workspace

    config = load_config(preset, overrides)
    if importlib.util.find_spec("kfp") is None:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'")
    if name and (Path(name).name != name or name.startswith(".") or name == "latest"):
        raise InputError(
            f"{name!r} is not a name for a run.", where="--name", fix="Use letters, digits and dashes."
        )
    check_workspace(work)
    chosen = name or new_run(work, config.name)
    folder = work.resolve() / chosen
    folder.mkdir(exist_ok=True)
    console = wide_console(stderr=as_json)
    console.print(
        f"{chosen}: output of the steps goes to {folder / 'log.txt'}", highlight=False, soft_wrap=True
    )
    progress = Progress(console)
    try:
        record = run_here(absolute_preset(preset), overrides, work, chosen, progress)
    finally:
        progress.stop()
    _conclude(record, folder, as_json, debug)
    return 130 if record["status"] == "killed" else int(record["exit_code"])


def _conclude(record: dict[str, Any], folder: Path, as_json: bool, debug: bool) -> None:
    from embedline.orchestration.outcome import show_outcome

    failed = bool(record["error"])
    if debug and failed:
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        note("\n".join(log[-60:]))
    if as_json:
        show(record)
    else:
        sys.stdout.flush()
        show_outcome(wide_console(stderr=failed), record, folder)

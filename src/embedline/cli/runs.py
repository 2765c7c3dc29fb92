"""The commands `init`, `plan` and `run`: from a first preset file to a finished run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import Workspace, check_workspace, checked_run_name
from embedline.cli.changed import since_last
from embedline.cli.console import optional_console
from embedline.cli.deploy import require_kfp
from embedline.cli.shared import (
    NO_OVERRIDES,
    WORK,
    AsJson,
    DataManifest,
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
from embedline.cli.starter import run_name, write_new, write_starter
from embedline.cli.work_folder import work_or_scratch
from embedline.config.load import deprecated, load_config
from embedline.errors import InputError
from embedline.importers import flagembedding
from embedline.orchestration.compile import one_line
from embedline.orchestration.local import new_run, run_here
from embedline.orchestration.outcome import show_outcome
from embedline.orchestration.progress import Progress
from embedline.planning.checks.recommendations import advice
from embedline.planning.cost import GPUS, estimate_run
from embedline.planning.cost_table import cost_table as table
from embedline.quoting import command_line
from embedline.runs.abandoned import close_abandoned


class Runner(StrEnum):
    """The way a step is executed."""

    process = "process"
    docker = "docker"


@command
def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder to write to, created if missing; it names the preset."),
    ],
    from_flagembedding: Annotated[
        str,
        typer.Option(
            metavar="SCRIPT|FLAGS",
            help="Write the preset that trains as a FlagEmbedding command: a script, or flags in quotes.",
        ),
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a first preset with example rows, or the preset of a FlagEmbedding command."""
    left_out: dict[str, str] = {}
    if from_flagembedding:
        imported = flagembedding.preset_from(from_flagembedding, run_name(folder))
        written, left_out = write_new({folder / "preset.yaml": imported.text}), imported.left_out
    else:
        written = write_starter(folder)
    preset = written[0]
    if as_json:
        show({"files": [str(path) for path in written], "left_out": left_out})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    if left_out:
        typer.echo(f"{len(left_out)} settings have no counterpart; {preset} lists them with reasons")
    typer.echo("Then:" if from_flagembedding else "Put your own rows into the data file, then:")
    for name in ("plan", "run"):
        typer.echo(f"  {command_line('embedline', name, preset)}")


@command
def plan(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = NO_OVERRIDES,
    gpu: Annotated[str, typer.Option(help="GPU model to estimate hours and memory for.")] = "h100",
    utilisation: Annotated[
        float, typer.Option(help="Share of the GPU's peak FLOP/s that training reaches.", min=0.01, max=1.0)
    ] = 0.4,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only estimate the cost of training; needs no data and no model."),
    ] = False,
    since: Annotated[
        bool,
        typer.Option(
            "--since-last",
            help="Only print what changed since the newest registered version (without one, the last run "
            "here), and whether a new run is needed.",
        ),
    ] = False,
    data_manifest: DataManifest = None,
    ci_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --since-last: append the lines needed=, train_key= and reason= to this file, for CI.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Estimate what training costs, validate a preset, and list the steps that would run.

    When data or models are missing, the estimate is printed all the same, with exit code 2.
    With --since-last the exit code is 0 whether a run is needed or not.
    """
    close_abandoned(work)
    if since:
        answer = since_last(preset, overrides, work, data_manifest, ci_output)
        if as_json:
            show(dataclasses.asdict(answer))
        else:
            typer.echo(answer.table())
        return 0
    if data_manifest or ci_output:
        raise InputError("--data-manifest and --ci-output need --since-last.")
    from embedline.planning.preflight import make_plan, missing_here

    if gpu not in GPUS:
        raise InputError(f"{gpu!r} is not a known GPU.", where="--gpu", fix=f"Known: {', '.join(GPUS)}.")
    config = load_config(preset, overrides)
    planned, problem, absent = None, None, []
    with work_or_scratch(work) as place:
        if not estimate:
            try:
                check_workspace(work, create=False)
                planned = make_plan(absolute_preset(preset), overrides, place)
            except InputError as error:
                problem = error
                absent = missing_here(config, absolute_preset(preset), place)
        base = planned.base(Workspace(place)) if planned else None
        cost = estimate_run(config, base, gpu=gpu, utilisation=utilisation)
    warnings = [*deprecated(preset, overrides), *advice(config)]
    if as_json:
        value = {**dataclasses.asdict(planned), "step_configs": None} if planned else {"warnings": warnings}
        failed = {"missing": absent, "error": str(problem), "exit_code": problem.exit_code} if problem else {}
        show({**value, "estimate": dataclasses.asdict(cost), **failed})
        return problem.exit_code if problem else 0
    typer.echo(table(cost))
    if planned:
        typer.echo(planned.table())
        return 0
    for warning in warnings:
        typer.echo(f"note: {warning}")
    if problem:
        for line in absent:
            typer.echo(f"not here: {line}")
        raise problem
    return 0


@command
def run(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = NO_OVERRIDES,
    name: Annotated[
        str,
        typer.Option(help="Name of the run. An existing run is resumed; without it the run gets a new name."),
    ] = "",
    runner: Annotated[
        Runner,
        typer.Option(help="Run each step in a process, or in a container of the image (see make images)."),
    ] = Runner.process,
    network: Annotated[
        str, typer.Option(help="Network of the containers: none, host, or the name of a Docker network.")
    ] = "none",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Run the whole line on this machine. Steps whose results are cached are not rerun.

    The run does not need its console: it goes on when the terminal closes (SIGHUP) or the output's reader
    ends (`| head`). Ctrl-C and SIGTERM stop it; a training writes a checkpoint first.

    Exit codes: 0 the gate passed, the model is already champion, or it is not judged (then no alias moves),
    4 the gate passed and somebody else moved the champion first, 3 the gate refused, 2 bad input, 1 a step
    failed, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
    """
    from embedline.planning.preflight import require_same_run

    config = load_config(preset, overrides)
    require_kfp()
    if name:
        checked_run_name(name, where="--name")
    _require_no_placeholder({"--name": name, "-o": one_line(overrides)})
    check_workspace(work)
    containers = None
    if runner is Runner.docker:
        from embedline.orchestration.containers import plan_containers

        containers = plan_containers(config, absolute_preset(preset), work.resolve(), network)
    chosen = name or new_run(work, config.name)
    folder = work.resolve() / chosen
    folder.mkdir(exist_ok=True)
    require_same_run(folder, config.model_dump(mode="json"))
    with optional_console():
        console = wide_console(stderr=as_json)
        console.print(
            f"{chosen}: output of the steps goes to {folder / 'log.txt'}", highlight=False, soft_wrap=True
        )
        progress = Progress(console)
        try:
            record = run_here(absolute_preset(preset), overrides, work, chosen, progress, containers)
        finally:
            progress.stop()
        _conclude(record, folder, as_json, debug)
    return record.exit_code or 0


def _require_no_placeholder(values: Mapping[str, str]) -> None:
    """Refuse kfp's mark of a placeholder in a value of the pipeline: kfp replaces it, or fails at it.

    Raises:
        InputError: naming the option.
    """
    for where, value in values.items():
        if "{{$" in value:
            raise InputError("holds {{$, which kfp replaces.", where=where, fix="Write it without {{$.")


def _conclude(record: RunRecord, folder: Path, as_json: bool, debug: bool) -> None:
    """Print the result of a run; with --debug and after a failure, the end of its log, too."""
    failed = record.error is not None
    if debug and failed:
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        note("\n".join(log[-60:]))
    if as_json:
        show(record.as_json())
    else:
        sys.stdout.flush()
        show_outcome(wide_console(stderr=failed), record, folder)

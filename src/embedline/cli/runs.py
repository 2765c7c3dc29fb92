"""init, plan, run: from a first preset file to a finished run."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedline.cli.changed import DataManifest, since_last
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
from embedline.cli.starter import run_name, write_new, write_starter
from embedline.errors import InputError


class Runner(StrEnum):
    """What runs a step."""

    process = "process"
    docker = "docker"


@command
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; made when it is not there.")],
    from_flagembedding: Annotated[
        str,
        typer.Option(
            metavar="SCRIPT|FLAGS",
            help="The preset that trains as a FlagEmbedding command does: a script, or flags in quotes.",
        ),
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a preset and a three-line data file to start from, or a preset from a FlagEmbedding command."""
    left_out: dict[str, str] = {}
    if from_flagembedding:
        from embedline.importers.flagembedding.preset import preset_from

        made = preset_from(from_flagembedding, run_name(folder))
        written, left_out = write_new({folder / "preset.yaml": made.text}), made.left_out
    else:
        written = write_starter(folder)
    preset = written[0]
    if as_json:
        show({"files": [str(path) for path in written], "left_out": left_out})
        return
    for path in written:
        typer.echo(f"wrote {path}")
    if left_out:
        typer.echo(f"{len(left_out)} flags have no counterpart; {preset} says why")
    typer.echo("Then:" if from_flagembedding else "Put your own rows into the data file, then:")
    typer.echo(f"  embedline plan {preset}")
    typer.echo(f"  embedline run {preset}")


@command
def plan(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    gpu: Annotated[str, typer.Option(help="GPU that hours and memory are estimated for.")] = "h100",
    utilisation: Annotated[
        float, typer.Option(help="Share of the GPU's peak that training reaches.", min=0.01, max=1.0)
    ] = 0.4,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only what training costs: no data and no model is needed.")
    ] = False,
    since: Annotated[
        bool,
        typer.Option(
            "--since-last",
            help="Only what changed since the newest registered version, else the last run here, and "
            "whether a run is needed.",
        ),
    ] = False,
    data_manifest: DataManifest = None,
    ci_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --since-last: append needed, train_key and reason as name=value lines, for CI.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Say what training costs, then validate a preset, pin what it depends on and show what would run.

    When data or models are missing, what training costs is said all the same (exit code 2).
    With --since-last the exit code is 0 whether or not a run is needed: the answer says it.
    """
    if since:
        said = since_last(preset, overrides, work, data_manifest, ci_output)
        if as_json:
            show(dataclasses.asdict(said))
        else:
            typer.echo(said.table())
        return 0
    if data_manifest or ci_output:
        raise InputError("--data-manifest and --ci-output go with --since-last.")
    from embedline.config.load import deprecated, load_config
    from embedline.planning.checks.recommendations import advice
    from embedline.planning.cost import GPUS, estimate_run
    from embedline.planning.cost_table import cost_table as table
    from embedline.planning.preflight import make_plan, missing_here

    if gpu not in GPUS:
        raise InputError(f"{gpu!r} is not known.", where="--gpu", fix=f"Known: {', '.join(GPUS)}.")
    config = load_config(preset, overrides)
    made, wrong = None, None
    if not estimate:
        try:
            made = make_plan(absolute_preset(preset), overrides, work)
        except InputError as error:
            wrong = error
    absent = missing_here(config, absolute_preset(preset), work) if wrong else []
    found = estimate_run(config, made.base if made else None, gpu=gpu, utilisation=utilisation)
    warnings = [*deprecated(preset, overrides), *advice(config)]
    if as_json:
        value = {**dataclasses.asdict(made), "step_configs": None} if made else {"warnings": warnings}
        failed = {"missing": absent, "error": str(wrong), "exit_code": wrong.exit_code} if wrong else {}
        show({**value, "estimate": dataclasses.asdict(found), **failed})
        return wrong.exit_code if wrong else 0
    typer.echo(table(found))
    if made:
        typer.echo(made.table())
        return 0
    for warning in warnings:
        typer.echo(f"note: {warning}")
    if wrong:
        for line in absent:
            typer.echo(f"not here: {line}")
        raise wrong
    return 0


@command
def run(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006
    name: Annotated[
        str, typer.Option(help="Name of the run's folder; one that exists is taken up again.")
    ] = "",
    runner: Annotated[
        Runner, typer.Option(help="What a step is: a process, or a container of the image (see make images).")
    ] = Runner.process,
    network: Annotated[
        str, typer.Option(help="The containers' network: none, host, or one that the engine knows.")
    ] = "none",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Run the whole line here: 0 passed or already champion, 3 refused, 2 bad input, 1 a step failed."""
    from embedline.artifacts.workspace import check_workspace, checked_run_name
    from embedline.config.load import load_config
    from embedline.orchestration.local import new_run, run_here
    from embedline.orchestration.progress import Progress
    from embedline.planning.preflight import require_same_run

    config = load_config(preset, overrides)
    if importlib.util.find_spec("kfp") is None:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'")
    if name:
        checked_run_name(name, where="--name")
    check_workspace(work)
    containers = None
    if runner is Runner.docker:
        from embedline.orchestration.containers import plan_containers

        containers = plan_containers(config, absolute_preset(preset), work.resolve(), network)
    chosen = name or new_run(work, config.name)
    folder = work.resolve() / chosen
    folder.mkdir(exist_ok=True)
    require_same_run(folder, config.model_dump(mode="json"))
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
    return int(record["exit_code"])


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

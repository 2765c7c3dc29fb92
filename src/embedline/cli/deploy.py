"""The commands `compile` and `submit`: the same pipeline on a cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.shared import (
    NO_OVERRIDES,
    WORK,
    AsJson,
    DataManifest,
    Debug,
    Overrides,
    Preset,
    Volume,
    Work,
    command,
    show,
)
from embedline.errors import InputError, os_reason
from embedline.orchestration import submit as server
from embedline.orchestration.compile import compile_pipeline
from embedline.orchestration.schedule import Schedule


@command
def compile_command(
    preset: Preset,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="File to write; without it standard output."),
    ] = None,
    overrides: Overrides = NO_OVERRIDES,
    volume: Volume = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compile the pipeline to YAML for Kubeflow Pipelines, with this preset and its overrides as defaults."""
    for override in overrides:
        if "=" not in override:
            raise InputError(
                f"{override!r} is not of the form section.key=value.",
                where="-o",
                fix="-o overrides a setting; to write a file use --output FILE.",
            )
    require_kfp()
    text = compile_pipeline(preset, overrides, volume or None)
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot be written ({os_reason(error)}).", where=str(output)) from error
    if as_json:
        show({"file": str(output) if output else None, "yaml": None if output else text})
    elif output is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"wrote {output}")


@command
def submit(
    host: Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines server.", envvar="KFP_HOST")],
    preset: Preset = "",
    overrides: Overrides = NO_OVERRIDES,
    volume: Volume = "",
    experiment: Annotated[
        str, typer.Option(help="Experiment of the run, created if new; without it `embedline`.")
    ] = "",
    namespace: Annotated[str | None, typer.Option(help="Profile namespace on a multi-user cluster.")] = None,
    service_account: Annotated[
        str, typer.Option(help="Service account of the pods; without it cluster.service_account.")
    ] = "",
    schedule: Annotated[
        str,
        typer.Option(
            metavar="CRON",
            help="Start a recurring run by a cron expression (minute hour day month weekday; Sunday is 0) "
            "in UTC, or in the zone of the server's CRON_SCHEDULE_TIMEZONE.",
        ),
    ] = "",
    every: Annotated[
        str, typer.Option(metavar="30m|6h|7d", help="Start a recurring run with this interval.")
    ] = "",
    pipeline: Annotated[
        str, typer.Option(help="Only upload a new version of the pipeline of this name; start no run.")
    ] = "",
    cancel: Annotated[
        str, typer.Option(metavar="ID", help="Only end this run or stop this recurring run; start no run.")
    ] = "",
    if_changed: Annotated[
        bool | None,
        typer.Option(
            "--if-changed/--even-if-unchanged",
            help="Name the run by its train key (see `embedline fingerprint`). --if-changed starts no run "
            "when a registered version or an active run has that key.",
        ),
    ] = None,
    data_manifest: DataManifest = None,
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start a run or a recurring run on a cluster, upload the pipeline, or cancel a run.

    The environment variable KFP_TOKEN holds the bearer token; KFP_TIMEOUT_S the seconds to wait for an answer
    (30). HTTP_PROXY, HTTPS_PROXY and NO_PROXY are obeyed. With --if-changed the exit code is also 0 when no
    run was started.
    """
    if bool(preset) == bool(cancel):
        raise InputError("exactly one of PRESET and --cancel ID is needed.")
    recurring = Schedule.read(schedule, every)
    if recurring and (pipeline or cancel):
        raise InputError(
            f"{'--pipeline' if pipeline else '--cancel'} starts no run, so it cannot be scheduled."
        )
    keyed = if_changed is not None
    if keyed and (recurring or pipeline or cancel):
        raise InputError(
            "--if-changed starts one run now: it excludes --schedule, --every, --pipeline and --cancel."
        )
    if data_manifest and not keyed:
        raise InputError("--data-manifest needs --if-changed or --even-if-unchanged.")
    require_kfp()

    def start(key: str = "") -> dict[str, str]:
        return server.submit_run(
            preset,
            overrides,
            volume or None,
            host=host,
            experiment=experiment,
            namespace=namespace,
            service_account=service_account,
            key=key,
            schedule=recurring,
        )

    if cancel:
        made = server.cancel(cancel, host=host, namespace=namespace)
    elif pipeline:
        made = server.upload_version(
            preset, overrides, volume or None, host=host, pipeline=pipeline, namespace=namespace
        )
    elif keyed:
        from embedline.orchestration.changed import start_with_key

        made = start_with_key(
            preset,
            overrides,
            work,
            data_manifest,
            start,
            anyway=not if_changed,
            host=host,
            namespace=namespace,
        )
    else:
        made = start()
    if as_json:
        show(made)
    elif made["what"] == "skipped":
        typer.echo(f"nothing started: {made['text']}")
    else:
        typer.echo(f"{made['what']} {made['id']}{_state(made)}: {made['url']}")
        if "schedule" in made:
            first = f", first at {made['next']}" if "next" in made else ""
            typer.echo(f"schedule: {made['schedule']}{first}")


def _state(made: dict[str, str]) -> str:
    return f" ({made['state'].lower()})" if "state" in made else ""


def require_kfp() -> None:
    """Raise an `InputError` when kfp is not installed."""
    if importlib.util.find_spec("kfp") is None:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'")

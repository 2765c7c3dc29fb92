"""compile, submit: the same DAG for a cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.changed import DataManifest
from embedline.cli.shared import WORK, AsJson, Debug, Overrides, Preset, Work, command, show
from embedline.errors import InputError


@command
def compile_command(
    preset: Preset,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; else standard output.")
    ] = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="section.key=value", help="Change the preset; repeatable.")
    ] = [],  # noqa: B006
    workspace: Annotated[
        str, typer.Option(help="Default of the pipeline's workspace input; else as in cluster.workspace.")
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the pipeline as YAML, with this preset as its default."""
    from embedline.orchestration.compile import compile_pipeline

    _needs_kfp()
    text = compile_pipeline(preset, overrides, workspace or None)
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(f"cannot be written ({reason}).", where=str(output)) from error
    if as_json:
        show({"file": str(output) if output else None, "yaml": None if output else text})
    elif output is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"wrote {output}")


@command
def submit(
    host: Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines API.", envvar="KFP_HOST")],
    preset: Annotated[str, typer.Argument(help="A shipped preset's name, or the path of a file.")] = "",
    overrides: Overrides = [],  # noqa: B006
    workspace: Annotated[
        str, typer.Option(help="Folder of the shared volume; else as in cluster.workspace.")
    ] = "",
    experiment: Annotated[
        str, typer.Option(help="Experiment to run in; else `embedline`, which is made when it is new.")
    ] = "",
    namespace: Annotated[str | None, typer.Option(help="Profile namespace, on a multi-user cluster.")] = None,
    service_account: Annotated[
        str, typer.Option(help="Account that the pods run as; else cluster.service_account.")
    ] = "",
    schedule: Annotated[
        str, typer.Option(metavar="CRON", help="Run again and again: minute hour day month weekday.")
    ] = "",
    every: Annotated[str, typer.Option(metavar="30m|6h|7d", help="Run again and again, so often.")] = "",
    pipeline: Annotated[
        str, typer.Option(help="Upload as a new version of this pipeline, without a run.")
    ] = "",
    cancel: Annotated[
        str, typer.Option(metavar="ID", help="End this run, or stop this recurring run; nothing is started.")
    ] = "",
    if_changed: Annotated[
        bool | None,
        typer.Option(
            "--if-changed/--even-if-unchanged",
            help="Name the run by its train key; --if-changed starts nothing when a registered version or an "
            "active run has that key.",
        ),
    ] = None,
    data_manifest: DataManifest = None,
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start a run on a cluster, or have one started again and again; upload only; or cancel.

    The bearer token comes from the environment, KFP_TOKEN. With --if-changed the exit code is 0 also when
    nothing was started.
    """
    from embedline.orchestration import submit as to_server
    from embedline.orchestration.schedule import Schedule

    if bool(preset) == bool(cancel):
        raise InputError("one of PRESET and --cancel ID is needed.")
    when = Schedule.read(schedule, every)
    if when and (pipeline or cancel):
        raise InputError(
            f"{'--pipeline' if pipeline else '--cancel'} starts nothing that could be scheduled."
        )
    keyed = if_changed is not None
    if keyed and (when or pipeline or cancel):
        raise InputError("--if-changed is about one run, started now.")
    if data_manifest and not keyed:
        raise InputError("--data-manifest goes with --if-changed or --even-if-unchanged.")
    _needs_kfp()

    def start(key: str = "") -> dict[str, str]:
        return to_server.submit_run(
            preset,
            overrides,
            workspace or None,
            host=host,
            experiment=experiment,
            namespace=namespace,
            service_account=service_account,
            key=key,
            schedule=when,
        )

    if cancel:
        made = to_server.cancel(cancel, host=host, namespace=namespace)
    elif pipeline:
        made = to_server.upload_version(
            preset, overrides, workspace or None, host=host, pipeline=pipeline, namespace=namespace
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


def _state(made: dict[str, str]) -> str:
    return f" ({made['state'].lower()})" if "state" in made else ""


def _needs_kfp() -> None:
    if importlib.util.find_spec("kfp") is None:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'")

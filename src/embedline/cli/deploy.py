"""compile, submit: the same DAG for a cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from embedline.cli.shared import AsJson, Debug, Overrides, Preset, command, show
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
    workspace: Annotated[str, typer.Option(help="Default of the pipeline's workspace input.")] = "/workspace",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the pipeline as YAML, with this preset as its default."""
    from embedline.config.load import load_config
    from embedline.orchestration.compile import compile_pipeline

    load_config(preset, overrides)
    _needs_kfp()
    text = compile_pipeline(preset, overrides, workspace)
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
    preset: Preset,
    host: Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines API.", envvar="KFP_HOST")],
    overrides: Overrides = [],  # noqa: B006
    workspace: Annotated[str, typer.Option(help="Folder of the shared volume.")] = "/workspace",
    experiment: Annotated[str, typer.Option(help="Experiment to run in.")] = "embedline",
    namespace: Annotated[str | None, typer.Option(help="Profile namespace, on a multi-user cluster.")] = None,
    pipeline: Annotated[
        str, typer.Option(help="Upload as a new version of this pipeline, without a run.")
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start a run on a cluster, or upload the pipeline to it."""
    from embedline.config.load import load_config
    from embedline.orchestration.submit import submit_run, upload_version

    load_config(preset, overrides)
    _needs_kfp()
    if pipeline:
        made = upload_version(preset, overrides, workspace, host=host, pipeline=pipeline, namespace=namespace)
    else:
        made = submit_run(preset, overrides, workspace, host=host, experiment=experiment, namespace=namespace)
    if as_json:
        show(made)
    else:
        typer.echo(f"{made['what']} {made['id']}: {made['url']}")


def _needs_kfp() -> None:
    if importlib.util.find_spec("kfp") is None:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'")

"""The commands, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

from embedline import __version__
from embedline.cli import changed, deploy, doctor, evaluate, inspect, models, registry, runs, steps, webhook

app = typer.Typer(
    help="An assembly line for text-embedding models: raw text in, a gated and registered ONNX model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for function in (
    runs.init,
    runs.plan,
    runs.run,
    steps.step,
    changed.fingerprint,
    deploy.compile_command,
    deploy.submit,
    evaluate.evaluate,
    models.embed,
    models.search,
    steps.gate,
    inspect.status,
    inspect.report,
    registry.promote,
    registry.rollback,
    registry.history,
    registry.reconcile,
    steps.clean_up,
    doctor.doctor,
):
    app.command(function.__name__.removesuffix("_command").replace("_", "-"))(function)

app.add_typer(webhook.app, name="webhook")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"embedline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An assembly line for text-embedding models: raw text in, a gated and registered ONNX model out."""


def main() -> None:
    """The entry point.

    Exit codes: 0 done, 1 a step failed, 2 bad input, 3 the gate refused, 4 the champion is not as expected.
    """
    app()

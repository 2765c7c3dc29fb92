"""The `embedline` command: all commands in their groups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from embedline import __version__
from embedline.cli import (
    changed,
    convert,
    deploy,
    doctor,
    embed,
    evaluate,
    index,
    inspect,
    prune,
    registry,
    runs,
    search,
    steps,
    webhook,
)
from embedline.cli.console import lost_output, prepare_streams, report_lost_output
from embedline.redaction import protect_process

_HELP = """\
Train, evaluate and promote text-embedding models.

One command runs the whole line: clean the text, train in stages, export to ONNX, evaluate, decide in a \
gate, register in MLflow. A preset (a YAML file) configures it. Start with `embedline init my-search`.
"""
_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (runs.init, runs.plan, runs.run, changed.fingerprint),
    "Look at runs": (inspect.status, inspect.report, steps.step, steps.gate, steps.clean_up),
    "Use a model": (
        evaluate.evaluate,
        embed.embed,
        index.index,
        search.search,
        prune.prune,
        convert.convert,
    ),
    "Promote": (registry.promote, registry.rollback, registry.history, registry.reconcile),
    "Run on a cluster": (deploy.compile_command, deploy.submit),
    "This machine": (doctor.doctor,),
}

app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _group, _functions in _GROUPS.items():
    for _function in _functions:
        _name = _function.__name__.removesuffix("_command").replace("_", "-")
        app.command(_name, rich_help_panel=_group)(_function)
app.add_typer(webhook.app, name="webhook", rich_help_panel="Promote")


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"embedline {__version__}")
        raise typer.Exit


@app.callback(help=_HELP)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of `embedline` itself."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 success, 1 a step failed, 2 bad input, 3 the gate refused the model, 4 the champion is not
    the expected version, or an alias was moved by other means.
    """
    prepare_streams()
    protect_process()
    try:
        app()
    except OSError:
        if (lost := lost_output()) is None:
            raise
        sys.exit(report_lost_output(lost))

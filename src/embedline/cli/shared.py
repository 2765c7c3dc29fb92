"""What every command shares: its common options, and one plain message on failure."""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from embedline.errors import EmbedlineError, InputError, Stopped, without_passwords

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")


def _each(given: list[str]) -> list[str]:
    """As the pipeline's own `overrides` input takes them: one a line, or a JSON list; empty is none."""
    if not given:
        return given
    from embedline.config.load import read_overrides

    try:
        return [override for text in given for override in read_overrides(text)]
    except EmbedlineError as error:
        raise typer.BadParameter(str(error)) from error


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="On failure show the traceback too.")]
Work = Annotated[Path, typer.Option("--work", help="Folder of runs, store, checkpoints and tracking.")]
Preset = Annotated[str, typer.Argument(help="A shipped preset's name, or the path of a preset file.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "-o", "--set", metavar="section.key=value", callback=_each, help="Change the preset; repeatable."
    ),
]
Uri = Annotated[
    str, typer.Option("--uri", help="Tracking server; else MLFLOW_TRACKING_URI, else the work folder's own.")
]
Run = Annotated[Path, typer.Argument(help="A run's folder, or its name in the work folder.")]
WORK = Path("runs")


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a function that returns an exit code (None: 0) into a command that fails with one message."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        debug, as_json = bool(kwargs.get("debug")), bool(kwargs.get("as_json"))
        if debug:
            os.environ["EMBEDLINE_DEBUG"] = "1"
        try:
            code = function(*args, **kwargs) or 0
        except EmbedlineError as error:
            code = _fail(str(error), error.exit_code, debug, as_json)
        except KeyboardInterrupt:
            code = _fail("interrupted.", 130, False, as_json)
        except Stopped as stopped:
            code = _fail(str(stopped), stopped.exit_code, False, as_json)
        except BrokenPipeError:
            sys.stderr.close()
            code = 1
        except Exception as error:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            code = _fail(f"unexpected {without_passwords(said)} (--debug shows where).", 1, debug, as_json)
        if code:
            raise typer.Exit(code)

    return guarded


def show(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def note(text: str) -> None:
    """For people, beside the result: standard error."""
    typer.echo(text, err=True)


def wide_console(*, stderr: bool = False) -> Console:
    """A terminal as it is; a file or a pipe gets lines of 140 characters, so that no table is cut."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=max(140, console.width))


def absolute_preset(preset: str) -> str:
    """A preset file's path that holds in other processes too."""
    return str(Path(preset).resolve()) if Path(preset).suffix in {".yaml", ".yml"} else preset


def run_folder(run: Path, work: Path) -> Path:
    """The folder of a run that is named by its folder, or by its name in the work folder.

    Raises:
        InputError: there is no such run.
    """
    for folder in (run, work / run):
        if (folder / "plan.json").is_file() or (folder / "run.json").is_file():
            return folder.resolve()
    raise InputError("no such run.", where=str(run), fix=f"`embedline status --work {work}` lists them.")


def _fail(message: str, code: int, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exc()
    if as_json:
        show({"error": message, "exit_code": code})
    else:
        note(f"error: {message}")
    return code

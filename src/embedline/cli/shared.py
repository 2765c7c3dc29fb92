"""The options that several commands take, each declared once, and one plain message on failure."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from embedline.cli.console import lost_output, report_lost_output
from embedline.config.load import read_overrides
from embedline.environment import keep_caches_in
from embedline.errors import EmbedlineError, InputError, Stopped, disk_full
from embedline.models.stated import Stated
from embedline.quoting import path_problem
from embedline.redaction import protect_process

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")


def _split_overrides(values: list[str]) -> list[str]:
    """Split each value of -o as the pipeline's `overrides` input: one override a line, or a JSON list."""
    try:
        return [override for text in values for override in read_overrides(text)]
    except EmbedlineError as error:
        raise typer.BadParameter(str(error)) from error


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="On failure print the traceback, too.")]


def _work_folder(text: str | Path) -> Path:
    """Read --work; an empty value (a variable that is not set) is not the current folder."""
    if not str(text).strip():
        raise typer.BadParameter("is empty; give the folder of your runs.")
    return Path(text)


Work = Annotated[
    Path,
    typer.Option(
        "--work",
        metavar="PATH",
        parser=_work_folder,
        help="Work folder: holds runs, cached results, checkpoints and tracking.",
    ),
]
Preset = Annotated[
    str, typer.Argument(metavar="PRESET", help="Name of a shipped preset, or path of a preset file.")
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "-o",
        "--set",
        metavar="section.key=value",
        callback=_split_overrides,
        help="Override a setting of the preset; repeatable.",
    ),
]
Uri = Annotated[
    str,
    typer.Option(
        "--uri",
        help="MLflow server; without it MLFLOW_TRACKING_URI, else the database in the work folder.",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its name in the work folder.")]
DataManifest = Annotated[
    Path | None,
    typer.Option(
        "--data-manifest",
        metavar="FILE",
        help="Data manifest (from `embedline fingerprint --write`) to use for data and models that are not "
        "on this machine.",
    ),
]
Volume = Annotated[
    str,
    typer.Option(
        "--workspace", help="Work folder on the cluster's shared volume; without it cluster.workspace."
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Model folder, ONNX folder, run folder, or models:/NAME@ALIAS of the registry."
    ),
]
Corpus = Annotated[
    Path,
    typer.Argument(
        metavar="CORPUS",
        help="Passages (id, title, text): a folder, or a file .jsonl, .jsonl.gz, .json, .parquet, .csv, .tsv "
        "or .txt (one a line).",
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(min=1, help="Keep only the first values of each vector (Matryoshka); without it all."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run the Python code in the model's folder, if the model needs it."
    ),
]


class PoolingName(StrEnum):
    """The poolings that a third-party folder may be stated to have."""

    mean = "mean"
    cls = "cls"
    last = "last"


StatedPooling = Annotated[
    PoolingName | None,
    typer.Option(
        "--pooling", help="Pooling of a third-party model; without it that of the folder's modules.json."
    ),
]
StatedCausal = Annotated[
    bool | None,
    typer.Option(
        "--causal/--bidirectional",
        help="Attention mask of a third-party decoder; without it that of the folder's files.",
    ),
]
RegisteredModel = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the registered model: by default the preset's name.")
]
Alias = Annotated[str, typer.Option(help="Alias to move.")]
Reason = Annotated[str, typer.Option(help="Reason, kept in the history of promotions.")]
By = Annotated[
    str,
    typer.Option(
        "--by", help="Name kept in the history; without it the CI user, else the user of this machine."
    ),
]
Expect = Annotated[
    str,
    typer.Option(
        "--expect", metavar="VERSION|none", help="Do nothing (exit code 4) unless this is the champion now."
    ),
]
WORK = Path("runs")
_PATHS_AS_TEXT = {"preset", "model"}  # a name or a path
NO_OVERRIDES: list[str] = []  # typer copies it


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a function that returns an exit code (None: 0) into a command that fails with one message."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        protect_process()
        debug, as_json = bool(kwargs.get("debug")), bool(kwargs.get("as_json"))
        if debug:
            os.environ["EMBEDLINE_DEBUG"] = "1"
        if isinstance(work := kwargs.get("work"), Path):
            keep_caches_in(work)
        try:
            _require_usable_paths(kwargs)
            code = function(*args, **kwargs) or 0
        except EmbedlineError as error:
            code = _fail(str(error), error.exit_code, debug, as_json)
        except KeyboardInterrupt:
            code = _fail("interrupted.", 130, False, as_json)
        except Stopped as stopped:
            code = _fail(str(stopped), stopped.exit_code, False, as_json)
        except Exception as error:
            if (lost := lost_output()) is not None:
                code = report_lost_output(lost)
            else:
                full = disk_full(error, Path(str(kwargs.get("work", "."))))
                code = _fail(str(full) if full else _unexpected(error), 1, debug, as_json)
        if code:
            raise typer.Exit(code)

    guarded.__doc__ = _unwrapped(function.__doc__ or "")
    return guarded


def _require_usable_paths(options: Mapping[str, object]) -> None:
    """Refuse a path that cannot be handed on, before a command writes anything.

    Raises:
        InputError: naming the path.
    """
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Path) or (name in _PATHS_AS_TEXT and isinstance(item, str)):
                require_usable_path(Path(item))


def require_usable_path(path: Path) -> None:
    """Refuse a path that cannot be handed on.

    Raises:
        InputError: naming the path.
    """
    path = path.absolute()
    if problem := path_problem(path):
        shown = repr(str(path)) if len(str(path)) <= 200 else f"{str(path)[:200]!r}…"
        raise InputError(f"{problem}.", where=shown, fix="Give the folder or file another name.")


def stated(pooling: PoolingName | None, causal: bool | None) -> Stated:
    """Return what the options --pooling and --causal state about a model folder."""
    return Stated(pooling.value if pooling else None, causal)


def show(value: Any) -> None:
    """Print a result as JSON on standard output; what its encoding lacks is escaped, so nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1, default=str)
    typer.echo(text)


def note(text: str) -> None:
    """Print a message beside the result, on standard error."""
    typer.echo(text, err=True)


def wide_console(*, stderr: bool = False) -> Console:
    """Open a console without markup; in a file or a pipe lines have 140 characters or more, for tables."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False)  # paths and names are printed as they are
    if not console.is_terminal:
        console.width = max(140, console.width)
    return console


def absolute_preset(preset: str) -> str:
    """Make a preset file's path absolute, for processes in other folders; a name stays as it is."""
    return str(Path(preset).resolve()) if Path(preset).suffix in {".yaml", ".yml"} else preset


def _unwrapped(docstring: str) -> str:
    """Join the lines of each paragraph, because the help text keeps line breaks."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(docstring).split("\n\n"))


def _unexpected(error: Exception) -> str:
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {message} (--debug prints the traceback)."


def _fail(message: str, code: int, debug: bool, as_json: bool) -> int:
    """Print the message of a failed command; return its exit code."""
    if debug:
        traceback.print_exc()
    if as_json:
        show({"error": message, "exit_code": code})
    else:
        note(f"error: {message}")
    return code

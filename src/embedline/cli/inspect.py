"""The commands `status` and `report`: the runs of a work folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import Workspace
from embedline.cli.registry import show_model
from embedline.cli.shared import WORK, AsJson, Debug, Run, Uri, Work, command, note, show, wide_console
from embedline.cli.work_folder import no_workspace, run_folder, tracking_uri
from embedline.errors import EmbedlineError, InputError
from embedline.orchestration.outcome import show_outcome
from embedline.quoting import sqlite_path
from embedline.registry.relocation import relocate
from embedline.registry.server import exists
from embedline.runs.abandoned import close_abandoned, current_record


class Champions(NamedTuple):
    """The aliases of a registered model, as its tracking server has them now.

    Args:
        aliases: version by alias.
        drift: one sentence for each alias that was moved by other means.
    """

    name: str
    uri: str
    aliases: dict[str, int]
    drift: list[str]


@command
def status(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of a registered model, to print its aliases instead of the runs."
        ),
    ] = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """List the runs of a work folder with their models' aliases, or the aliases of one model.

    Exit code 4, with NAME: an alias was moved by other means; `embedline reconcile NAME` settles it.
    """
    if name:
        return show_model(name, tracking_uri(uri, work), as_json)
    close_abandoned(work)
    folders = (file.parent for file in work.glob("*/run.json"))
    records = [current_record(folder) for folder in folders if not folder.is_symlink()]
    if not records and not Workspace(work).exists:
        raise no_workspace(work)
    records.sort(key=lambda record: (record.started, record.run))
    champions = _champions(records)
    if as_json:
        keys = {"run", "preset", "status", "exit_code", "started", "seconds", "model", "verdict", "error"}
        show(
            {
                "runs": [record.model_dump(include=keys) for record in records],
                "champions": [model._asdict() for model in champions],
            }
        )
        return 0
    if not records:
        typer.echo(f"no runs in {work}")
    for record in records:
        typer.echo(_line(record))
    for model in champions:
        aliases = ", ".join(f"{alias}: version {version}" for alias, version in model.aliases.items())
        typer.echo(f"model {model.name}: {aliases or 'no champion yet'}")
        for line in model.drift:
            typer.echo(f"  {line}")
    return 0


@command
def report(
    run: Run = Path("latest"),
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the result of a finished run and the path of its HTML report."""
    folder = run_folder(run, work)
    record = current_record(folder)
    if not record.status:
        raise InputError("the run has no record yet.", where=str(folder), fix="Wait until it has finished.")
    if record.status == "running":
        raise InputError("the run is not finished.", where=str(folder), fix="Wait until it has finished.")
    if database := sqlite_path(record.tracking.get("uri", "")):
        relocate(database)  # the printed `mlflow ui` line reads it as it stands
    if as_json:
        page = folder / "report.html"
        show({**record.as_json(), "report": str(page) if page.is_file() else None})
    else:
        show_outcome(wide_console(), record, folder)


def _line(record: RunRecord) -> str:
    """Describe one run in one line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started))
    text = f"{record.run or '?':<36}{when}  {record.status or '?':<10}"
    if record.seconds is not None:
        text += f"{record.seconds:>8.0f} s"
    if (mean := record.stages.get("candidate", {}).get("mean")) is not None:
        text += f"  nDCG@10 {mean:.3f}"
    if version := record.model.get("version"):
        text += f"  version {version}"
    return text.rstrip()


def _champions(records: list[RunRecord]) -> list[Champions]:
    """Read the aliases of every registered model that the runs belong to."""
    known: dict[tuple[str, str], None] = {}
    for record in records:
        name, uri = record.model.get("name"), record.tracking.get("uri")
        if name and uri:
            known[name, uri] = None
    if not known:
        return []
    from embedline.registry.overview import overview

    champions = []
    for name, uri in known:
        if not exists(uri):
            note(f"warning: {uri}: there is no such tracking database.")
            continue
        try:
            model = overview(name, uri=uri)
            aliases = {alias: at.version for alias, at in model.aliases.items()}
            champions.append(Champions(name, uri, aliases, model.drift))
        except EmbedlineError as error:
            note(f"warning: {error}")
    return champions

"""status, report: what is in a work folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from embedline.cli.shared import (
    WORK,
    AsJson,
    Debug,
    Run,
    Uri,
    Work,
    command,
    note,
    run_folder,
    show,
    wide_console,
)
from embedline.errors import EmbedlineError, InputError


@command
def status(
    name: Annotated[
        str,
        typer.Argument(help="A registered model: its aliases; 4 when there is something to reconcile."),
    ] = "",
    work: Work = WORK,
    uri: Uri = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """List the runs of a work folder and the champions they compete for, or the aliases of one model."""
    from embedline.artifacts.run_folder import read_run
    from embedline.cli.registry import show_model, tracker
    from embedline.runs.record import is_abandoned

    if name:
        return show_model(name, tracker(uri, work), as_json)
    if not work.is_dir():
        raise InputError("no such work folder.", where=str(work), fix="Give the --work of your runs.")
    found = []
    for file in sorted(work.glob("*/run.json"), key=lambda path: path.stat().st_mtime):
        if not file.parent.is_symlink():
            record = read_run(file.parent)
            if is_abandoned(record):
                record["status"] = "killed"
            found.append(record)
    champions = _champions(found)
    if as_json:
        keys = ("run", "preset", "status", "exit_code", "started", "seconds", "model", "verdict", "error")
        show({"runs": [{key: record.get(key) for key in keys} for record in found], "champions": champions})
        return 0
    if not found:
        typer.echo(f"no runs in {work}")
    for record in found:
        typer.echo(_line(record))
    for champion in champions:
        aliases = ", ".join(f"{alias}: version {version}" for alias, version in champion["aliases"].items())
        typer.echo(f"model {champion['name']}: {aliases or 'no champion yet'}")
        for line in champion["drift"]:
            typer.echo(f"  {line}")
    return 0


@command
def report(
    run: Run = Path("latest"),
    work: Work = WORK,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how a run ended and where its HTML report is."""
    from embedline.artifacts.run_folder import read_run
    from embedline.orchestration.outcome import show_outcome

    folder = run_folder(run, work)
    record = read_run(folder)
    if not record:
        raise InputError("the run has no record.", where=str(folder), fix="Wait for its end.")
    if record["status"] == "running":
        raise InputError("the run is still going on.", where=str(folder), fix="Wait for its end.")
    if as_json:
        show(
            {**record, "report": str(folder / "report.html") if (folder / "report.html").is_file() else None}
        )
    else:
        show_outcome(wide_console(), record, folder)


def _line(record: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.get("started", 0)))
    text = f"{record.get('run', '?'):<36}{when}  {record.get('status', '?'):<10}"
    if record.get("seconds") is not None:
        text += f"{record['seconds']:>8.0f} s"
    if mean := record.get("stages", {}).get("candidate", {}).get("mean"):
        text += f"  nDCG@10 {mean:.3f}"
    if version := (record.get("model") or {}).get("version"):
        text += f"  version {version}"
    return text.rstrip()


def _champions(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every registered model that a run of this folder made, as its tracker says now."""
    known: dict[tuple[str, str], None] = {}
    for record in records:
        name, uri = (record.get("model") or {}).get("name"), (record.get("tracking") or {}).get("uri")
        if name and uri:
            known[name, uri] = None
    champions = []
    for name, uri in known:
        from embedline.registry.overview import overview

        try:
            found = overview(name, uri=uri)
            pointed = {alias: at.version for alias, at in found.aliases.items()}
            champions.append({"name": name, "uri": uri, "aliases": pointed, "drift": found.drift})
        except EmbedlineError as error:
            note(f"warning: {error}")
    return champions

"""fingerprint, and what plan --since-last says: whether anything that decides a model has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Overrides, Preset, Work, command, show
from embedline.errors import InputError

if TYPE_CHECKING:
    from embedline.planning.fingerprint import Fingerprint
    from embedline.planning.fingerprint_diff import Comparison

DataManifest = Annotated[
    Path | None,
    typer.Option(
        "--data-manifest",
        metavar="FILE",
        help="Take data and models from what `fingerprint --write` wrote, where they are not at hand.",
    ),
]


@command
def fingerprint(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = [],  # noqa: B006
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the data manifest (data.lock.json), to be committed."),
    ] = None,
    data_manifest: DataManifest = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print what decides the model of a preset (data, code, image, config, base) and its train key."""
    from embedline.planning import data_lock as datamanifest

    found = datamanifest.fingerprint(preset, overrides, work, data_manifest)
    if write:
        datamanifest.write_data_manifest(write, found)
    if as_json:
        show({"train_key": found.train_key, "parts": found.parts(), "manifest": json.loads(found.manifest())})
        return
    for line in _lines(found):
        typer.echo(line)
    if write:
        typer.echo(f"wrote {write}")


def since_last(
    preset: str, overrides: Sequence[str], work: Path, data_manifest: Path | None, ci_output: Path | None
) -> Comparison:
    """Compare with the newest registered version that says what it was made from, else with the last run.

    Args:
        ci_output: file that the answer is appended to as `name=value` lines.

    Raises:
        InputError: the preset, the data or the tracking store is not usable.
    """
    from embedline.artifacts.workspace import Workspace, check_workspace
    from embedline.config.load import load_config
    from embedline.planning.data_lock import fingerprint as fingerprint_of
    from embedline.planning.fingerprint_diff import Since, compare_fingerprints, last_run
    from embedline.registry.tracking import prepare
    from embedline.registry.tracking_target import tracking_target
    from embedline.registry.trained import newest_trained, version_with_key

    config = load_config(preset, overrides)
    check_workspace(work)
    found = fingerprint_of(preset, overrides, work, data_manifest)
    name, uri = config.promote.model or config.name, tracking_target(config.tracking, Workspace(work)).uri
    prepare(uri)
    version = version_with_key(name, found.train_key, uri=uri)
    newest = newest_trained(name, uri=uri)
    since = Since(f"version {newest.version} of {name}", newest.values) if newest else last_run(work, name)
    said = compare_fingerprints(found, since, f"version {version} of {name}" if version else "")
    if ci_output:
        lines = "".join(f"{key}={value}\n" for key, value in said.outputs().items())
        try:
            with ci_output.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(f"cannot be written ({reason}).", where=str(ci_output)) from error
    return said


def _lines(found: Fingerprint) -> list[str]:
    rows: list[tuple[str, ...]] = [("what", "uri", "rows", "bytes", "checksum")]
    for entry in found.data:
        counts = ["?" if value is None else f"{value:,}" for value in (entry.rows, entry.size)]
        rows.append((f"{entry.kind}.{entry.name}", entry.uri, *counts, _short(entry.checksum)))
    rows += [(model.role, model.uri, "", "", _short(model.checksum)) for model in found.base]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(
            cell.rjust(width) if 2 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    parts = found.parts()
    lines += [f"{part:<10}{_short(parts[part])}" for part in parts]
    return [*lines, f"{'train key':<10}{found.train_key}"]


def _short(checksum: str) -> str:
    return checksum if checksum.startswith("hub:") else checksum[:12]

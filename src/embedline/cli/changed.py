"""The command `fingerprint`, and the comparison of `plan --since-last`: is a new run needed?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from embedline.artifacts.workspace import Workspace
from embedline.cli.shared import (
    NO_OVERRIDES,
    WORK,
    AsJson,
    DataManifest,
    Debug,
    Overrides,
    Preset,
    Work,
    command,
    show,
)
from embedline.cli.work_folder import work_or_scratch
from embedline.config.load import load_config
from embedline.errors import InputError, os_reason
from embedline.registry.server import exists, prepare
from embedline.registry.tracking_target import tracking_target

if TYPE_CHECKING:
    from embedline.planning.fingerprint import Fingerprint
    from embedline.planning.fingerprint_diff import Comparison


class _Row(NamedTuple):
    """One line of the table of data and models."""

    what: str
    uri: str
    rows: str = ""
    size: str = ""
    checksum: str = ""


@command
def fingerprint(
    preset: Preset,
    work: Work = WORK,
    overrides: Overrides = NO_OVERRIDES,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a data manifest (data.lock.json) to commit to git."),
    ] = None,
    data_manifest: DataManifest = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the checksums that determine a preset's model, and the train key made of them.

    They cover data, code, image, configuration and base model. Two runs with the same train key train the
    same model.
    """
    from embedline.planning import data_lock as datamanifest

    with work_or_scratch(work) as place:
        found = datamanifest.fingerprint(preset, overrides, place, data_manifest)
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
    """Compare a preset with the newest registered version that has a fingerprint, else with the last run.

    Args:
        ci_output: file to append the result to, as `name=value` lines.

    Raises:
        InputError: the preset, the data or the tracking server is not usable.
    """
    from embedline.planning.data_lock import fingerprint as fingerprint_of
    from embedline.planning.fingerprint_diff import Since, compare_fingerprints, last_run
    from embedline.registry.trained import newest_trained, version_with_key

    config = load_config(preset, overrides)
    with work_or_scratch(work) as place:
        found = fingerprint_of(preset, overrides, place, data_manifest)
    name, uri = config.promote.model or config.name, tracking_target(config.tracking, Workspace(work)).uri
    version, newest = None, None
    if exists(uri):
        prepare(uri, may_write=False)
        version = version_with_key(name, found.train_key, uri=uri)
        newest = newest_trained(name, uri=uri)
    since = Since(f"version {newest.version} of {name}", newest.values) if newest else last_run(work, name)
    result = compare_fingerprints(found, since, f"version {version} of {name}" if version else "")
    if ci_output:
        lines = "".join(f"{key}={value}\n" for key, value in result.outputs().items())
        try:
            with ci_output.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise InputError(f"cannot be written ({os_reason(error)}).", where=str(ci_output)) from error
    return result


def _lines(found: Fingerprint) -> list[str]:
    """Lay out a fingerprint: its data and models as a table, then the checksum of each part."""
    rows = [_Row("what", "uri", "rows", "bytes", "checksum")]
    for entry in found.data:
        count, size = ("?" if value is None else f"{value:,}" for value in (entry.rows, entry.size))
        rows.append(_Row(f"{entry.kind}.{entry.name}", entry.uri, count, size, _short(entry.checksum)))
    rows += [_Row(model.role, model.uri, checksum=_short(model.checksum)) for model in found.base]
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

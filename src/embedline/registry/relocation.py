"""Artefact addresses of a sqlite store that was moved or copied together with the artefacts beside it.

MLflow keeps absolute addresses: `create_experiment` makes a relative one absolute, and every program that
reads the store (`mlflow ui`, `mlflow.load_model`) opens the address as it stands. So the addresses are
replaced in the database itself, in one transaction, when it is opened at another place.
"""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

from embedline.environment import INTERNAL
from embedline.errors import InputError
from embedline.quoting import file_path, file_uri

ARTIFACTS = "mlartifacts"  # folder beside the database
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_WAIT_S = 20  # for another process that writes


def relocate(database: Path) -> bool:
    """Point the addresses of a moved or copied store at the artefacts beside it.

    A store that does not exist, is no MLflow store or lies where it was is left alone. Several processes may
    call this at once: the first one writes.

    Returns:
        Whether addresses were replaced.

    Raises:
        InputError: the database cannot be written to.
    """
    if not database.is_file():
        return False
    with closing(sqlite3.connect(database, timeout=_WAIT_S, isolation_level=None)) as connection:
        if not _former_places(connection, database):
            return False
        try:
            connection.execute("BEGIN IMMEDIATE")
            for former in _former_places(connection, database):
                _replace(connection, former, file_uri(_artifacts(database)))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise InputError(
                f"this tracking database was moved, and its addresses cannot be replaced ({error}).",
                where=str(database),
                fix="Make it writable, or end the process that holds it.",
            ) from error
    return True


def _artifacts(database: Path) -> Path:
    return database.resolve().parent / ARTIFACTS


def _former_places(connection: sqlite3.Connection, database: Path) -> list[str]:
    """Return the addresses, other than the present one, at which artefacts lay beside the database."""
    try:
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    except sqlite3.Error:  # no MLflow store, or not readable: mlflow itself gives the reason
        return []
    artifacts = _artifacts(database)
    in_workspace = any((parent / INTERNAL).is_dir() for parent in artifacts.parents)
    former = []
    for (address,) in found:
        place = file_path(address) if address else None
        if place is None or place.name != ARTIFACTS or place.resolve() == artifacts:
            continue
        # A store outside of every workspace may hold experiments of the user with a folder of that name.
        if in_workspace or (artifacts.is_dir() and not place.exists()):
            former.append(address)
    return former


def _replace(connection: sqlite3.Connection, former: str, present: str) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, column in _ADDRESSES:
        if table in tables:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # constants
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (present, len(former) + 1, former, len(former) + 1, f"{former}/"),
            )

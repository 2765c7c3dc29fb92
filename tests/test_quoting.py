"""Addresses of paths: the libraries that read an address find the path again, whatever its name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from embedline.quoting import file_path, file_uri, sqlite_path, sqlite_uri

NAMES = [
    "plain",
    "what?",
    "a#b",
    "100%",
    "a%20b",
    "a%3Fb",
    "two words",
    "it's",
    'say "x"',
    "back\\slash",
    "[/red]",
    "{a,b}*",
    "$(id)`id`",
    "a;b&c|d",
    "-rf",
    "user:pass@host",
    "s3::x",
    "http:",
    "😀",
    "Ёжик",
    "Е\u0308жик",
    "line\nfeed",
    "х" * 120,
]


@pytest.mark.parametrize("name", NAMES)
def test_sqlite_uri_opens_the_database_of_this_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    database = folder / "a.db"
    uri = sqlite_uri(database)
    assert make_url(uri).database == str(database)
    with create_engine(uri).begin() as connection:
        connection.execute(text("CREATE TABLE made (x)"))
    assert [path.name for path in folder.iterdir()] == ["a.db"]
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("made",)]
    assert sqlite_path(uri) == database


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_makes_no_folder_beside_the_database(tmp_path: Path, name: str) -> None:
    from mlflow.store.db.utils import _make_parent_dirs_if_sqlite

    (tmp_path / name).mkdir(parents=True)
    _make_parent_dirs_if_sqlite(sqlite_uri(tmp_path / name / "a.db"))
    assert [path.name for path in tmp_path.iterdir()] == [name.partition("/")[0]]


@pytest.mark.parametrize("name", NAMES)
def test_file_uri_is_the_path_for_mlflow(tmp_path: Path, name: str) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local

    uri = file_uri(tmp_path / name)
    stored = append_to_uri_path(resolve_uri_if_local(uri), "1f", "artifacts")
    assert LocalArtifactRepository(stored).artifact_dir == str(tmp_path / name / "1f" / "artifacts")
    assert file_path(stored) == tmp_path / name / "1f" / "artifacts"


def test_sqlite_path_of_other_addresses() -> None:
    assert sqlite_path("sqlite:///mlflow.db?timeout=30") == Path("mlflow.db")
    assert sqlite_path("sqlite:////a%20b/mlflow.db") == Path("/a b/mlflow.db")
    others = ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
    assert not any(map(sqlite_path, [*others, "http://host/a.db", "postgresql://host/mlflow", "/a.db"]))


def test_file_path_of_a_plain_path_and_of_other_addresses(tmp_path: Path) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    for location in ("/a%20b/c?d", "relative/x#y"):
        assert file_path(location) == Path(LocalArtifactRepository(location).artifact_dir)
    assert not any(map(file_path, ["s3://bucket/a", "mlflow-artifacts:/1/2", "http://host/a"]))

"""Addresses and commands: the programs that read them find the path again, whatever its name."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from embedline.quoting import (
    command_line,
    file_path,
    file_uri,
    home_expanded,
    path_problem,
    sqlite_path,
    sqlite_uri,
)

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


def test_command_line_gives_a_shell_the_same_words(tmp_path: Path) -> None:
    printed = command_line("printf", "%s\\0", *NAMES)
    told = subprocess.run(["bash", "-c", printed], capture_output=True, cwd=tmp_path, check=True).stdout
    assert told.decode().split("\0")[:-1] == NAMES
    assert not list(tmp_path.iterdir())
    assert command_line("embedline", "plan", Path("-rf/preset.yaml")) == "embedline plan ./-rf/preset.yaml"


def test_home_expanded_leaves_what_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert home_expanded("~/data") == Path("/home/ann/data")
    assert home_expanded("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert home_expanded("data/~") == Path("data/~")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b"\xff", "UTF-8"),
        (b"line\nfeed", "control character"),
        (b"\x1b[31mred", "control character"),
        ("a\u2028b".encode(), "control character"),
        (b"{{$.inputs}}", "kfp"),
        ("х".encode() * 128, "255 bytes"),
    ],
)
def test_path_problem_names_what_cannot_be_handed_on(name: bytes, problem: str) -> None:
    assert problem in path_problem(Path("/work") / name.decode(errors="surrogateescape"))


def test_path_problem_is_empty_for_other_names() -> None:
    assert not any(path_problem(Path("/work") / name) for name in NAMES if "\n" not in name)

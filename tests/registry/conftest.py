"""MLflow database of every test, copied from one that was initialised once."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.registry.server import DATABASE, default_uri, prepare


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    prepare(default_uri(folder))
    return folder / DATABASE


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    folder = tmp_path / "tracking"
    folder.mkdir()
    shutil.copy(empty_database, folder / DATABASE)
    return default_uri(folder)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo-1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def _no_ambient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_model(tmp_path: Path):
    """Make a small model artefact whose digest depends on `content`."""

    def make(content: str) -> Artifact:
        folder = tmp_path / "models" / content
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content.encode() * 100)
        (folder / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
        return write_manifest(folder, kind="model", step="train_supervised", key=content)

    return make


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., Any]) -> Any:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / DATABASE)
    return serve(folder)


class Stored:
    """Database and files of a server, which can be reset while the server runs."""

    def __init__(self, folder: Path) -> None:
        self._database, self._files = folder / DATABASE, folder / "artifacts"

    def save(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _copy_database(self._database, folder / DATABASE)
        if self._files.exists():
            shutil.copytree(self._files, folder / self._files.name)

    def restore(self, folder: Path) -> None:
        shutil.rmtree(self._files, ignore_errors=True)
        if (kept := folder / self._files.name).exists():
            shutil.copytree(kept, self._files)
        _copy_database(folder / DATABASE, self._database)

    def content(self) -> str:
        """Return every row, and every file with its size; new ids and times are replaced by `*`."""
        with closing(sqlite3.connect(self._database)) as database:
            rows = list(database.iterdump())
        files = sorted(path for path in self._files.rglob("*") if path.is_file())
        sizes = [f"{path.relative_to(self._files)} {path.stat().st_size}" for path in files]
        return re.sub(r"[0-9a-f]{32}|\b\d{13}\b", "*", "\n".join([*rows, *sizes]))


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target, timeout=60)) as new:
        old.backup(new)


class Actors:
    """Separate processes that act on a tracking server; see actors.py."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("actors.py"))
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True)

    def act(self, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
        """Run all jobs at once, one process each; return their results in the same order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the actors have died"
        told: list[dict[str, Any]] = json.loads(line)
        return told

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def stored(server: Any) -> Stored:
    return Stored(server.folder)


@pytest.fixture(scope="module")
def actors() -> Iterator[Actors]:
    started = Actors()
    yield started
    started.close()

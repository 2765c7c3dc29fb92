"""A fresh MLflow database for every test, copied from one that was initialised once."""

from __future__ import annotations

import shutil
from pathlib import Path

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
    """A small model artefact; its content, and so its digest, depends on `content`."""

    def make(content: str) -> Artifact:
        folder = tmp_path / "models" / content
        (folder / "1_Pooling").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content.encode() * 100)
        (folder / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
        return write_manifest(folder, kind="model", step="train_supervised", key=content)

    return make

"""Commands that only read: in a folder where nothing was run they create nothing and say so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedline.cli.app import app

ROW = {"query": "how to reset it", "pos": ["Press the button for ten seconds."]}
DEMO = ["-o", 'data.root="demo:"', "-o", "data.sources.0.path=train/sts.jsonl"]
MODEL = "models:/tiny@champion"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "preset.yaml"
    (tmp_path / "pairs.jsonl").write_text((json.dumps(ROW) + "\n") * 256)
    (tmp_path / "passages.jsonl").write_text('{"text": "Press the button."}\n')
    path.write_text("name: tiny\ndata:\n  sources: [{path: pairs.jsonl}]\n")
    return path


def _files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "empty"])
@pytest.mark.parametrize(
    "line",
    [
        "status",
        "status tiny",
        "history tiny",
        "report",
        "gate",
        "step gate",
        "promote tiny 1",
        "rollback tiny",
        "reconcile tiny",
        "webhook list",
        f"embed {MODEL} passages.jsonl",
        f"search {MODEL} passages.jsonl question",
    ],
)
def test_without_a_workspace_nothing_is_created(
    line: str, exists: bool, preset: Path, tmp_path: Path
) -> None:
    work = tmp_path / "runz"
    if exists:
        work.mkdir()
    before = _files(tmp_path)
    done = CliRunner().invoke(app, [*line.split(), "--work", str(work)])
    assert done.exit_code == 2
    assert ("there is no workspace" if exists else "no such work folder") in done.output
    assert str(work) in done.output
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    "data", [[], ["-o", 'data.root="demo:"', "-o", "data.sources.0.path=train/sts.jsonl"]]
)
@pytest.mark.parametrize("line", ["plan", "plan --since-last", "fingerprint"])
def test_a_plan_before_the_first_run_creates_nothing(
    line: str, data: list[str], preset: Path, tmp_path: Path
) -> None:
    before = _files(tmp_path)
    name, *more = line.split()
    done = CliRunner().invoke(app, [name, str(preset), *more, *data, "--work", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert _files(tmp_path) == before


def test_doctor_before_the_first_run_creates_nothing(tmp_path: Path) -> None:
    before = _files(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--json", "--work", str(tmp_path / "runs")])
    checks = {check["name"]: check for check in json.loads(done.output)["checks"]}
    assert "the first run creates it" in checks["tracker"]["value"]
    assert checks["tracker"]["ok"]
    assert str(tmp_path) in checks["disk"]["value"]
    assert _files(tmp_path) == before


@pytest.mark.parametrize("line", ["status", "history tiny", "plan preset.yaml", "run preset.yaml", "doctor"])
def test_an_empty_work_folder_is_not_the_current_one(line: str, preset: Path, tmp_path: Path) -> None:
    before = _files(tmp_path)
    done = CliRunner().invoke(app, [*line.split(), "--work", ""])
    assert done.exit_code == 2
    assert "--work" in done.output
    assert _files(tmp_path) == before


def test_an_address_of_a_missing_database_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["history", "tiny", "--uri", f"sqlite:///{tmp_path / 'none.db'}"])
    assert done.exit_code == 2
    assert "there is no such tracking database" in done.output
    assert list(tmp_path.iterdir()) == []

"""Steps in containers, without an engine: permissions, and the check of exit events."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from embedline.artifacts.run_folder import RUN, read_run
from embedline.cli.app import app
from embedline.config.load import load_config
from embedline.errors import InputError
from embedline.orchestration import containers, local
from embedline.orchestration.containers import EXITS, ExitWatch, plan_containers
from embedline.runs import record as runrecord

ROOT = Path(__file__).parents[2]
PRESET = "name: tiny\ndata: {sources: [{path: pairs.jsonl}]}\n"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has every image."""

    @contextmanager
    def answering() -> Any:
        yield SimpleNamespace(images=SimpleNamespace(get=lambda name: name))

    monkeypatch.setattr(containers, "engine", answering)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 10001, 10001)
    return folder.resolve()


def _plan(preset: Path | str, workspace: Path, *overrides: str, network: str = "none") -> dict[str, Any]:
    config = load_config(str(preset), overrides)
    planned = plan_containers(config, str(preset), workspace, network)
    return json.loads(json.dumps(planned.arguments(workspace / "r")))  # type: ignore[no-any-return]


def _mounts(arguments: dict[str, Any]) -> dict[str, bool]:
    """Return each mounted folder and whether it is writable."""
    assert all(mount["Source"] == mount["Target"] for mount in arguments["mounts"])
    return {mount["Source"]: not mount["ReadOnly"] for mount in arguments["mounts"]}


@pytest.mark.usefixtures("engine")
def test_container_writes_only_to_the_workspace_without_privileges(workspace: Path) -> None:
    arguments = _plan("demo-short", workspace)
    assert _mounts(arguments) == {str(workspace): True}
    assert arguments["read_only"] is True
    assert list(arguments["tmpfs"]) == ["/tmp"]
    assert arguments["network_mode"] == "none"
    assert arguments["environment"]["HF_HUB_OFFLINE"] == "1"
    assert arguments["cap_drop"] == ["ALL"]
    assert arguments["security_opt"] == ["no-new-privileges"]
    owner = workspace.stat()
    assert arguments["user"] == f"{owner.st_uid}:{owner.st_gid}"
    assert not arguments["user"].startswith("0:")


@pytest.mark.usefixtures("engine")
def test_folders_of_a_preset_are_mounted_read_only(workspace: Path, tmp_path: Path) -> None:
    preset, data, model = tmp_path / "here" / "run.yaml", tmp_path / "data", tmp_path / "models" / "base"
    for folder in (preset.parent, data, model):
        folder.mkdir(parents=True)
    preset.write_text(PRESET)
    assert _mounts(_plan(preset, workspace)) == {str(workspace): True, str(preset.parent): False}
    overrides = (f"data.root={data}", f"model.base={model}")
    arguments = _plan(preset, workspace, *overrides)
    assert _mounts(arguments) == {
        str(workspace): True,
        str(data): False,
        str(preset.parent): False,
        str(model): False,
    }
    assert arguments["working_dir"] == str(data)


@pytest.mark.usefixtures("engine")
def test_container_gets_only_the_needed_environment(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("PRIVATE_NOTE", "canary")
    arguments = _plan("demo-short", workspace, network="host")
    assert arguments["environment"]["MLFLOW_TRACKING_URI"] == "http://tracker:5000"
    assert "canary" not in json.dumps(arguments)
    assert arguments["network_mode"] == "host"


@pytest.mark.usefixtures("engine")
def test_a_secret_that_the_preset_refers_to_reaches_the_containers(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary")
    arguments = _plan("demo-short", workspace, "tracking.token=env:MY_TOKEN")
    assert arguments["environment"]["MY_TOKEN"] == "canary"
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setenv("EMBEDLINE_SECRETS", str(tmp_path))
    arguments = _plan("demo-short", workspace, "tracking.token=secret:mlflow/token")
    assert arguments["environment"]["EMBEDLINE_SECRETS"] == str(tmp_path)
    assert "MY_TOKEN" not in arguments["environment"]
    assert _mounts(arguments) == {str(workspace): True, str(tmp_path / "mlflow"): False}


@pytest.mark.usefixtures("engine")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own the folder")
def test_workspace_of_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="chown"):
        _plan("demo-short", tmp_path)


def test_run_without_an_engine_fails_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    said = CliRunner().invoke(app, ["run", "demo-short", "--runner", "docker", "--work", str(tmp_path / "w")])
    assert said.exit_code == 2
    assert "does not answer" in said.output
    assert "Start Docker" in said.output
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.parametrize(("required", "code"), [("", 0), ("1", 1)])
def test_engine_script_skips_without_an_engine_unless_required(
    tmp_path: Path, required: str, code: int
) -> None:
    """A machine without a running engine and without dockerd."""
    for tool in ("id", "mkdir"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    ended = subprocess.run(
        ["/bin/bash", str(ROOT / "infra/images/engine.sh"), "with", "mkdir", str(tmp_path / "ran")],
        env={"PATH": str(tmp_path), "EMBEDLINE_REQUIRE_DOCKER": required},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code, ended.stderr
    assert "no Docker engine: none answers" in ended.stderr
    assert ("skipped: start Docker" in ended.stderr) is (code == 0)
    assert not (tmp_path / "ran").exists()


def _event(name: str, number: int, code: int = 0) -> dict[str, Any]:
    attributes = {"exitCode": str(code)} if name == "die" else {}
    return {
        "Action": name,
        "id": f"{number:064x}",
        "timeNano": 1_700_000_000_000_000_000 + number,
        "Actor": {"Attributes": attributes},
    }


@given(st.lists(st.sampled_from([0, 0, 0, 1, 137]), max_size=20), st.integers(0, 20), st.integers(0, 2))
def test_exit_events_must_match_the_number_of_tasks(codes: list[int], tasks: int, lost: int) -> None:
    watch = ExitWatch(Path("/runs/r"))
    started = [_event("start", number) for number in range(len(codes) + lost)]
    watch._collect([*started, *(_event("die", number, code) for number, code in enumerate(codes))])
    counts = codes.count(0) == tasks and lost == 0
    assert (watch.mismatch(tasks) == "") is counts


def test_run_fails_when_exit_events_contradict_its_success(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runner and record report success, and one container ended with 137."""
    secret = {"MLFLOW_TRACKING_PASSWORD": "canary"}
    planned = containers.Containers(workspace, "10001:10001", "none", [], workspace, secret)
    folder = workspace / "r"
    folder.mkdir()

    class Driver:
        """Write what the exit handler writes after a successful run, and exit."""

        pid, returncode = 2**22 + 1, 0

        def __init__(self, command: list[str], stdin: Any, env: dict[str, str], **_: Any) -> None:
            given = json.loads(stdin.read())
            assert given["labels"] == {containers.LABEL: str(folder)}
            assert given["environment"] == secret
            assert "canary" not in " ".join([*command, *env.values()]), "everybody can read the arguments"
            runrecord.begin_run(folder, run="r", preset="p")
            record = {**read_run(folder).as_json(), "status": "succeeded", "exit_code": 0, "error": None}
            (folder / RUN).write_text(json.dumps(record))

        def poll(self) -> int:
            return 0

        def wait(self) -> int:
            return 0

    @contextmanager
    def watching(self: ExitWatch) -> Any:
        self._collect([_event("start", 1), _event("die", 1, 137)])
        yield

    monkeypatch.setattr(local.subprocess, "Popen", Driver)
    monkeypatch.setattr(ExitWatch, "watching", watching)
    monkeypatch.setattr(local, "stop_containers", lambda folder: None)
    record = local.run_here("p", [], workspace, "r", lambda *_: None, planned)
    assert (record.status, record.exit_code) == ("failed", 1)
    assert record.error is not None
    assert "exit codes in order: 137" in record.error.message
    assert EXITS in record.error.message
    assert read_run(folder).status == "failed"

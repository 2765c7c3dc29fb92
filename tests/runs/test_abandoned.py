"""Runs whose process ended without closing them; a living one is never taken for dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from embedline.artifacts.record import StepRecord, read_records, write_record
from embedline.artifacts.run_folder import read_run, write_run
from embedline.cli.app import app
from embedline.runs.abandoned import close_abandoned, current_record, run_lock
from embedline.runs.process import process_mark
from embedline.runs.record import begin_run


@pytest.fixture
def dead() -> int:
    """Return the pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _run(work: Path, pid: int, **other: Any) -> Path:
    folder = work / "tiny-1"
    folder.mkdir(parents=True)
    begin_run(folder, run="tiny-1", preset="tiny.yaml", pid=pid)
    write_record(folder / "steps" / "clean", StepRecord(step="clean", status="running", started_at=1000.0))
    os.utime(folder / "steps" / "clean" / "record.json", (1060.0, 1060.0))
    record = read_run(folder).model_copy(update={"started": 990.0, **other})
    write_run(folder, type(record).model_validate(record.as_json() | other))
    return folder


def test_a_run_without_its_process_is_closed_as_of_its_last_sign_of_life(tmp_path: Path, dead: int) -> None:
    folder = _run(tmp_path, dead)
    assert close_abandoned(tmp_path) == ["tiny-1"]
    record = read_run(folder)
    assert (record.status, record.exit_code) == ("killed", 1)
    assert record.error is not None
    assert (record.error.step, record.error.message[:31]) == ("clean", "The process of the run was kill")
    (step,) = read_records(folder)
    assert (step.status, step.seconds) == ("killed", 60.0)
    assert (record.ended, record.seconds) == (1060.0, 70.0)
    assert close_abandoned(tmp_path) == []


def test_a_start_is_counted_from_the_boot_and_matches_psutil() -> None:
    mark = process_mark(os.getpid())
    assert mark.born is not None
    ticks = os.sysconf("SC_CLK_TCK")
    assert psutil.boot_time() + mark.born / ticks == pytest.approx(psutil.Process().create_time(), abs=2)
    assert mark.pid_namespace == os.readlink(f"/proc/{os.getpid()}/ns/pid")


def test_a_living_process_keeps_its_run(tmp_path: Path) -> None:
    _run(tmp_path, os.getpid())
    assert close_abandoned(tmp_path) == []


def test_a_pid_that_was_given_away_again_is_another_process(tmp_path: Path) -> None:
    _run(tmp_path, os.getpid(), born=1.0)
    assert close_abandoned(tmp_path) == ["tiny-1"]


def test_a_run_of_another_machine_on_a_shared_disk_is_left_alone(tmp_path: Path, dead: int) -> None:
    folder = _run(tmp_path, dead, host="elsewhere", boot="another-boot")
    assert close_abandoned(tmp_path) == []
    assert current_record(folder).status == "running"


@pytest.mark.parametrize("where", [{"boot": "before"}, {"boot": ""}, {"pid_namespace": "pid:[1]"}])
def test_after_a_restart_and_in_another_container_the_lock_decides(
    tmp_path: Path, where: dict[str, str]
) -> None:
    """The pid says nothing there: it is this living process's."""
    folder = _run(tmp_path, os.getpid(), **where)
    with run_lock(folder):
        assert close_abandoned(tmp_path) == []
        assert current_record(folder).status == "running"
    assert close_abandoned(tmp_path) == ["tiny-1"]
    assert current_record(folder).status == "killed"


def test_status_report_and_clean_up_agree_on_a_run_that_cannot_be_closed(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    _run(tmp_path, dead)
    monkeypatch.setattr("embedline.runs.abandoned.finish", full)
    command = CliRunner()
    listed = command.invoke(app, ["status", "--work", str(tmp_path), "--json"])
    reported = command.invoke(app, ["report", "tiny-1", "--work", str(tmp_path), "--json"])
    status = json.loads(listed.stdout)["runs"][0]
    report = json.loads(reported.stdout)
    assert (status["status"], status["error"]) == (report["status"], report["error"])
    assert status["status"] == "killed"
    assert command.invoke(app, ["clean-up", "--work", str(tmp_path)]).exit_code == 0


def test_a_run_that_begins_again_has_no_report_of_its_first_attempt(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("passed", encoding="utf-8")
    begin_run(tmp_path, run="tiny-1", preset="tiny.yaml")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["status", "plan", "gate"])
def test_commands_close_what_they_see(tmp_path: Path, dead: int, name: str) -> None:
    folder = _run(tmp_path, dead)
    subject = {"status": [], "plan": ["absent.yaml"], "gate": ["tiny-1"]}[name]
    CliRunner().invoke(app, [name, *subject, "--work", str(tmp_path)])
    assert read_run(folder).status == "killed"

"""Runs with the real command, real kfp processes and quick steps: records, exit codes, processes."""

from __future__ import annotations

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from embedline.dag import STEPS
from embedline.orchestration import local

pytestmark = pytest.mark.timeout(300)


def test_a_run_leaves_a_complete_record_and_a_second_one_reuses_it(line: Any) -> None:
    first = line.run()
    assert first.returncode == 0, first.stdout + first.stderr
    record = line.record()
    assert record["status"] == "succeeded"
    assert [step["step"] for step in record["steps"]] == ["preflight", *STEPS]
    assert all(step["status"] == "done" and step["peak_memory_mb"] > 0 for step in record["steps"])
    assert record["stages"] == {
        "bm25": {"Support": 0.4, "mean": 0.4},
        "candidate": {"Support": 0.7, "mean": 0.7},
    }
    assert record["model"]["version"] == 1
    assert record["config"]["name"] == "tiny"
    latest = line.work / "latest"
    assert os.readlink(latest) == record["run"]
    assert (latest / "model" / "manifest.json").is_file()
    assert (latest / "onnx" / "onnx.json").is_file()
    assert (latest / "report.html").read_text() == "<p>fake</p>"
    assert f"close {record['run']} FINISHED" in line.told
    assert "score Support 0.7" in line.told
    for shown in (
        "train_supervised",
        "BM25",
        "0.400",
        "gate: passed",
        "version 1",
        "report.html",
        "embedline search",
    ):
        assert shown in first.stdout
    # switched-off steps hand on by reference: the candidate is the supervised model itself
    outputs = {step["step"]: step["outputs"] for step in record["steps"]}
    assert outputs["prune_after"]["model"] == outputs["train_supervised"]["model"]
    assert outputs["prune_before"]["model"]["path"] is None

    worked = line.calls()
    again = line.run("--json")
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    repeated = {name for name, step in STEPS.items() if not step.cached}
    assert set(line.calls()[len(worked) :]) == repeated
    hits = {step["step"] for step in second["steps"] if step["cache_hit"]}
    assert hits == set(STEPS) - repeated - {"prune_before", "prune_after"}

    # what was found in the store shows the course of its training in the UI all the same
    pages = [line.work / run["run"] / ".kfp" for run in (record, second)]
    drawn = [next(page.glob("*/train-supervised/curves")).read_text() for page in pages]
    assert drawn[0] == drawn[1]
    assert "<polyline" in drawn[0]
    told = json.loads(next(pages[1].glob("*/train-supervised/executor_output.json")).read_text())
    assert told["artifacts"]["metrics"]["artifacts"][0]["metadata"]["loss"] == 0.25

    # a new bar reruns the gate and what follows, nothing else; so does, with its step, what is damaged
    [mined] = line.work.glob(".embedline/store/mine/*/triplets/triplets.json")
    whole, before = mined.read_bytes(), mined.stat()
    mined.write_bytes(bytes(len(whole)))
    os.utime(mined, ns=(before.st_atime_ns, before.st_mtime_ns))
    called = len(line.calls())
    assert line.run("-o", "gate.max_drop_vs_champion=0.5").returncode == 0
    assert line.calls()[called:] == ["mine", "evaluate", "gate", "promote", "report"]
    assert mined.read_bytes() == whole
    log = (line.work / "latest/log.txt").read_text()
    assert f"damaged, will be made again. {mined}: the file has changed" in log


@pytest.mark.parametrize(
    ("fake", "code", "status", "message"),
    [
        ("gate=refuse", 3, "refused", "gate: refused"),
        (
            "mine=raise",
            1,
            "failed",
            "failed in mine: step mine: the loss is not a number. Lower the learning rate.",
        ),
        ("ingest=bad-input", 2, "failed", "failed in ingest: pairs.jsonl: no row has a positive. Fill pos."),
        ("pretrain=die", 1, "failed", "failed in pretrain: The process died without an error"),
    ],
)
def test_each_result_has_its_exit_code_record_and_message(
    line: Any, fake: str, code: int, status: str, message: str
) -> None:
    ended = line.run(fake=fake)
    assert ended.returncode == code, ended.stdout + ended.stderr
    said = ended.stdout + ended.stderr
    assert said.count(message) == 1
    assert "Traceback" not in said
    record = line.record()
    assert (record["status"], record["exit_code"]) == (status, code)
    assert f"close {record['run']} {'FINISHED' if code == 3 else 'FAILED'}" in line.told
    failing = fake.partition("=")[0]
    if code != 3:
        assert record["error"]["step"] == failing
        assert "log: " in said
        assert f"step {failing} FAILED" in line.told
    # earlier artefacts stand, and nothing half-written lies about
    store = line.work / ".embedline" / "store"
    assert not list(store.glob("*/.*.draft")) or fake == "pretrain=die"
    for manifest in store.rglob("manifest.json"):
        json.loads(manifest.read_text())


def test_a_run_that_was_not_judged_succeeds_and_says_so(line: Any) -> None:
    ended = line.run(fake="gate=unjudged")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for shown in (
        "gate: not judged (1 warning)",
        "  – No set was scored.",
        "  ! warning: Below BM25.",
        "embedline promote tiny 1",
    ):
        assert shown in ended.stdout
    assert "gate: passed" not in ended.stdout
    record = line.record()
    assert (record["status"], record["exit_code"]) == ("not judged", 0)
    assert record["verdict"]["outcome"] == "not judged"
    assert f"close {record['run']} FINISHED" in line.told


def test_final_failures_are_not_retried_and_lost_processes_are(line: Any) -> None:
    ended = line.run(fake="train_supervised=die-once train_unsupervised=flaky")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    log = (line.work / "latest" / "log.txt").read_text()
    assert log.count("FAILURE") == 2  # one attempt each
    assert all(step["status"] == "done" for step in line.record()["steps"])
    refused = line.run("-o", "seed=1", fake="train_supervised=raise")
    assert refused.returncode == 1
    record = line.record()
    step = next(step for step in record["steps"] if step["step"] == "train_supervised")
    assert step["final"] is True
    log = (line.work / "latest" / "log.txt").read_text()
    assert log.count("error: step train_supervised: the loss is not a number") == 1  # no further try began
    assert "the loss is not a number" in record["error"]["message"]


def _hanging(line: Any) -> tuple[subprocess.Popen[str], Path, int]:
    """Start a run whose pretrain never ends; return its folder and the step's process id."""
    process = subprocess.Popen(
        line.command(),
        env=line.environment("pretrain=hang"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in line.work.glob("tiny-*/steps/pretrain/record.json"):
            record = json.loads(file.read_text())
            if record["pid"] and record["status"] == "running" and record["key"] == "":
                return process, file.parents[2], record["pid"]
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the step never began")


def _wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_ends_its_processes_and_is_recorded(
    line: Any, sent: signal.Signals, code: int
) -> None:
    process, folder, step = _hanging(line)
    process.send_signal(sent)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == code
    # The step records SIGTERM itself, when it is faster than the SIGKILL that follows.
    assert "Stopped from outside." in said or "stopped by SIGTERM." in said
    assert _wait_gone(step)
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["exit_code"]) == ("killed", code)
    assert f"close {record['run']} KILLED" in line.told


def test_active_run_is_not_started_again(line: Any) -> None:
    process, folder, step = _hanging(line)
    try:
        second = line.run("--name", folder.name)
        assert second.returncode == 2, second.stdout + second.stderr
        assert "a run of this name is in progress" in second.stderr
        assert psutil.pid_exists(step)
        assert json.loads((folder / "run.json").read_text())["pid"] == process.pid
    finally:
        process.terminate()
        process.communicate(timeout=120)


def test_run_is_not_resumed_with_another_preset(line: Any) -> None:
    assert line.run("--name", "mine", fake="mine=raise").returncode == 1
    folder = line.work / "mine"
    before = (folder / "run.json").read_bytes()
    other = line.run("--name", "mine", "-o", "seed=7", "-o", "supervised.steps=9")
    assert other.returncode == 2
    assert "begun with other settings (seed, supervised.steps)" in other.stderr
    assert (folder / "run.json").read_bytes() == before, "what became of the first run still stands"
    again = line.run("--name", "mine")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "✗" not in again.stdout, "the first attempt's failure is not told again"


def test_killed_command_leaves_no_process_and_its_record_is_closed(line: Any) -> None:
    process, folder, step = _hanging(line)
    process.kill()
    process.wait()
    assert _wait_gone(step)
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert line.run().returncode == 0
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "killed"
    assert f"close {record['run']} KILLED" in line.told
    assert os.readlink(line.work / "latest") != record["run"]


STEP = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    time.sleep(4)
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save if sys.argv[2] == "saves" else signal.SIG_IGN)
(folder / "ready").touch()
time.sleep(600)
"""


def _driver_of(step: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a driver that ends on SIGTERM at once, with a step that does not."""
    command = shlex.join([sys.executable, "-c", STEP, str(folder), step])
    driver = subprocess.Popen(["sh", "-c", f"{command} & wait"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (folder / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return driver


def test_stopped_step_has_time_to_save_after_its_driver_ended(tmp_path: Path) -> None:
    local._end(_driver_of("saves", tmp_path))
    assert (tmp_path / "saved").exists()


def test_a_step_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_GRACE_S", 0.5)
    driver = _driver_of("stays", tmp_path)
    local._end(driver)
    deadline = time.monotonic() + 60  # the system needs a moment to take a killed process away
    while local._signal_group(driver, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not local._signal_group(driver, 0)


def test_a_run_keeps_and_shows_no_secret(line: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A step shows a token of the environment and a mounted one in every form, then fails with both."""
    token, mounted = "t0ken/of+the?env", "m0unted/key+of#team"
    (tmp_path / "secrets" / "team").mkdir(parents=True)
    (tmp_path / "secrets" / "team" / "key").write_text(f"{mounted}\n")
    monkeypatch.setenv("EMBEDLINE_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"{token}\n")
    failed = line.run("--debug", fake="ingest=leak")
    assert failed.returncode == 1
    record = line.record()
    assert record["error"] == {
        "step": "ingest",
        "message": "ValueError: Invalid header value b'Bearer *** ***'",
    }
    log = (line.work / "latest" / "log.txt").read_text()
    assert "sent *** '***\\n' *** *** Basic " in log
    assert "from below: ***" in log
    texts = {"console": failed.stdout + failed.stderr}
    for path in (*line.work.rglob("*"), line.folder / "tracker.txt"):
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("utf-8", "replace")
    for secret in (token, mounted):
        basic = base64.b64encode(f"me:{secret}".encode()).decode().rstrip("=")
        for form in (secret, quote(secret), quote(secret, safe=""), basic):
            assert [name for name, text in texts.items() if form in text] == []

"""A step in two processes, as a component runs it: done, one killed, terminated, resumed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from embedline.training.engine.curves import TIMED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).with_name("one_step.py")
STEP = "train_supervised"
STAGE = {
    "objective": "unified",
    "steps": 40,
    "batch": 16,
    "negatives": 2,
    "batch_tokens": 128,
    "checkpoint_every": 5,
    "log_every": 5,
}


class Place:
    """A workspace in which the step is started as often as it takes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(self.root), "r", STEP],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def finish(self) -> str:
        process = self.start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def interrupt(self, act: Callable[[psutil.Process], None]) -> tuple[int, str, float]:
        """Act once there is a checkpoint; exit code, output and the seconds until the end."""
        process = self.start()
        deadline = time.monotonic() + 240
        while not list(self.root.glob(".embedline/checkpoints/*/checkpoint-*/complete")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        acted = time.monotonic()
        act(psutil.Process(process.pid))
        output, _ = process.communicate(timeout=200)
        return process.returncode, output, time.monotonic() - acted

    @property
    def record(self) -> dict[str, Any]:
        path = self.root / "r" / "steps" / STEP / "record.json"
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.root / self.record["outputs"]["model"]["path"] / "model.safetensors")

    def told(self) -> list[tuple[str, int, float]]:
        lines = (self.root / "r" / "steps" / STEP / "spool.jsonl").read_text().splitlines()
        metrics = [line for line in map(json.loads, lines) if line["type"] == "metric"]
        return sorted(
            (m["key"], m["step"], m["value"]) for m in metrics if m["key"] not in {*TIMED, "seconds"}
        )


def workers(process: psutil.Process) -> list[psutil.Process]:
    found = [p for p in process.children(recursive=True) if "embedline.execution.worker" in p.cmdline()]
    return sorted(found, key=lambda p: int(p.environ()["RANK"]))


def _prepared(root: Path, processes: int) -> Path:
    spec = importlib.util.spec_from_file_location("one_step", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.prepare(root, supervised=STAGE, runtime={"processes": processes, "threads": 1})
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two processes, never interrupted."""
    place = Place(_prepared(tmp_path_factory.mktemp("two") / "work", 2))
    place.finish()
    return place


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Place:
    """The same workspace before the step."""
    root = tmp_path / "work"
    shutil.copytree(whole.root, root, ignore=shutil.ignore_patterns(".embedline", "r", "made"))
    return Place(root)


def assert_same_end(place: Place, whole: Place) -> None:
    assert place.record["status"] == "done"
    expected = whole.weights()
    for name, value in place.weights().items():
        assert torch.equal(value, expected[name]), name
    assert place.told() == whole.told()


def test_two_processes_make_one_result(whole: Place, tmp_path: Path) -> None:
    record = whole.record
    assert (record["status"], record["cache_hit"]) == ("done", False)
    assert record["peak_memory_mb"] > 0
    assert "64" in record["summary"]
    assert {step for key, step, _ in whole.told() if key == "dense_loss"} == set(range(5, 41, 5))
    assert "cached" not in whole.finish()
    assert whole.record["cache_hit"]

    alone = Place(_prepared(tmp_path / "alone", 1))
    alone.finish()
    assert alone.record["key"] != record["key"]
    assert alone.weights().keys() == whole.weights().keys()


def test_a_killed_process_ends_all_with_the_reason_and_the_next_try_resumes(
    place: Place, whole: Place
) -> None:
    pids: list[int] = []

    def kill(process: psutil.Process) -> None:
        pids.extend(worker.pid for worker in workers(process))
        assert len(pids) == 2
        os.kill(pids[1], signal.SIGKILL)

    code, output, seconds = place.interrupt(kill)
    assert code == 1, output
    assert seconds < 60
    assert "process 1 of 2 died of SIGKILL" in output
    record = place.record
    assert (record["status"], record["final"]) == ("failed", False)
    assert "died of SIGKILL" in record["error"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "resumed at step" in place.finish()
    assert_same_end(place, whole)


def test_sigterm_keeps_a_checkpoint_ends_with_143_and_the_next_try_resumes(
    place: Place, whole: Place
) -> None:
    code, output, seconds = place.interrupt(lambda process: process.terminate())
    assert code == 143, output
    assert seconds < 30
    record = place.record
    assert (record["status"], record["exit_code"], record["final"]) == ("killed", 143, False)
    assert "stopped by SIGTERM after step" in record["error"]
    at = int(record["error"].partition("after step ")[2].split()[0])
    assert (next(place.root.glob(".embedline/checkpoints/*")) / f"checkpoint-{at}" / "complete").is_file()
    assert f"resumed at step {at} of 40" in place.finish()
    assert_same_end(place, whole)


def test_sigterm_to_one_process_alone_keeps_a_checkpoint_too(tmp_path: Path) -> None:
    place = Place(_prepared(tmp_path / "one", 1))
    code, output, seconds = place.interrupt(lambda process: process.terminate())
    assert code == 143, output
    assert seconds < 30
    at = int(place.record["error"].partition("after step ")[2].split()[0])
    assert f"resumed at step {at} of 40" in place.finish()
    alone = Place(_prepared(tmp_path / "whole", 1))
    alone.finish()
    assert_same_end(place, alone)


def test_processes_do_not_outlive_a_killed_step(place: Place) -> None:
    pids: list[int] = []

    def kill(process: psutil.Process) -> None:
        pids.extend(worker.pid for worker in workers(process))
        os.kill(process.pid, signal.SIGKILL)

    code, _, _ = place.interrupt(kill)
    assert code == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)

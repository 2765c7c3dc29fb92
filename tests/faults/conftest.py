"""The real line on the demo's data, made small: every step does its job, on fewer rows and steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SMALL = {
    "data.sources.0.limit": 400,
    "data.sources.1.limit": 400,
    "data.sources.2.limit": 300,
    "data.sources.4.limit": 100,
    "data.sources.5.limit": 200,
    "data.sources.6.limit": 200,
    "data.sources.7.limit": 200,
    "data.corpus.0.limit": 600,
    "model.settings.hidden_size": 64,
    "model.dims": "[32]",
    "pretrain.steps": 30,
    "pretrain.checkpoint_every": 5,
    "unsupervised.steps": 20,
    "unsupervised.checkpoint_every": 4,
    "unsupervised.batch": 64,
    "supervised.steps": 20,
    "supervised.checkpoint_every": 4,
    "supervised.batch": 32,
    "prune.heal_steps": 5,
    "evaluate.bootstrap": 50,
    "gate.rules": '[{set: "*", min: 0}]',  # a rule that judges, and passes so short a training
    "gate.without": "[below_untrained, collapsed]",
    "gate.require_parity": "false",
}


class Line:
    """The real command in a work folder of its own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.variables: dict[str, str] | None = None  # instead of this process's own

    def command(self, **overrides: Any) -> list[str]:
        values = {**SMALL, **{key.replace("__", "."): value for key, value in overrides.items()}}
        options = [part for key, value in values.items() for part in ("-o", f"{key}={value}")]
        return [sys.executable, "-m", "embedline.cli", "run", "demo", "--work", str(self.work), *options]

    def environment(self) -> dict[str, str]:
        if self.variables is not None:
            return self.variables
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return {**clean, "MLFLOW_DISABLE_TELEMETRY": "true"}

    def run(self, **overrides: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(**overrides), capture_output=True, text=True, timeout=900, env=self.environment()
        )

    def kill_when(self, step: str, checkpoint: int, **overrides: Any) -> None:
        """Start, wait for a checkpoint of `step` at or after that number, then SIGKILL everything."""
        process = subprocess.Popen(
            self.command(**overrides),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=self.environment(),
        )
        deadline = time.monotonic() + 600
        pattern = f".embedline/checkpoints/{step}-*/checkpoint-*/complete"
        while time.monotonic() < deadline:
            found = [int(p.parent.name.split("-")[1]) for p in self.work.glob(pattern)]
            if any(number >= checkpoint for number in found):
                break
            if process.poll() is not None:
                pytest.fail(f"the run ended before {step} had a checkpoint")
            time.sleep(0.05)
        else:
            pytest.fail(f"{step} wrote no checkpoint in time")
        _kill_tree(process.pid)
        process.wait(timeout=60)

    @property
    def record(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.work / "latest" / "run.json").read_text(encoding="utf-8"))
        return value

    def steps(self) -> dict[str, dict[str, Any]]:
        return {step["step"]: step for step in self.record["steps"]}


def _kill_tree(pid: int) -> None:
    import psutil

    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("work"))

"""A run killed with SIGKILL in each training stage, started again, ends as if nothing had happened."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_killed_in_each_training_stage_ends_complete(line: Any) -> None:
    line.kill_when("pretrain", 5)
    line.kill_when("train_unsupervised", 4)
    line.kill_when("train_supervised", 4)
    done = line.run()
    assert done.returncode == 0, done.stdout + done.stderr
    steps = line.steps()
    assert all(step["status"] == "done" for step in steps.values())
    # What was finished before the last kill is found again; what was interrupted goes on where it stopped.
    assert steps["pretrain"]["cache_hit"]
    assert steps["train_unsupervised"]["cache_hit"]
    assert not steps["train_supervised"]["cache_hit"]
    log = (line.work / "latest" / "log.txt").read_text(encoding="utf-8")
    assert "resumed at step" in log
    assert not list((line.work / ".embedline" / "store").rglob("*.draft"))
    records = sorted(line.work.glob("demo-*/run.json"))
    assert len(records) == 4

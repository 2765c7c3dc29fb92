"""Progress line of a training during a run."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from embedline.artifacts.record import StepRecord
from embedline.artifacts.tracker import Tracker
from embedline.orchestration import progress
from embedline.orchestration.progress import Progress, step_line


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Report a running step and return the line that was printed for it."""
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.0)
    screen = io.StringIO()
    watch = Progress(Console(file=screen, width=200))

    def look(step: str = "train_supervised") -> str:
        screen.truncate(0)
        watch(tmp_path, [StepRecord(step=step, status="running", started_at=time.time() - 5)])
        return screen.getvalue().split("\n")[0].strip("\0 ")

    return look


def test_the_line_of_a_training_follows_its_spool(tmp_path: Path, watched: Any) -> None:
    assert watched() == "train_supervised: 5 s"
    tracker = Tracker(tmp_path / "steps" / "train_supervised")
    tracker.params({"steps": 1000, "learning_rate": 0.1})
    assert watched() == "train_supervised: 5 s"
    tracker.metrics({"loss": 0.5, "loss.faq": 9.0, "tokens_per_second": 8000.0, "eta_seconds": 90.0}, step=10)
    assert watched() == "train_supervised: 5 s, step 10/1000 loss 0.5000 8,000 tokens/s 0:01:30 left"
    tracker.metrics({"loss": 0.25, "eta_seconds": 80.0}, step=20)
    tracker.metrics({"loss": 7.0, "seconds": 3.0})  # a result, not a point of the curve
    assert watched() == "train_supervised: 5 s, step 20/1000 loss 0.2500 8,000 tokens/s 0:01:20 left"
    assert watched("clean") == "clean: 5 s"


def test_the_line_has_the_time_left_of_the_run_by_its_plan(tmp_path: Path, watched: Any) -> None:
    steps = [("ingest", "cached", 50.0), ("train_supervised", "runs", 605.0), ("mine", "passed through", 9.0)]
    steps += [("evaluate", "acts", 300.0), ("report", "runs", None)]
    plan = {"steps": [{"step": step, "action": action, "seconds": s} for step, action, s in steps]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert watched() == "train_supervised: 5 s, run: about 15 minutes left"
    assert watched("preflight") == "preflight: 5 s"
    Tracker(tmp_path / "steps" / "train_supervised").metrics({"loss": 0.5, "eta_seconds": 60.0}, step=10)
    assert watched().endswith("0:01:00 left, run: about 6 minutes left"), "the training's own speed is better"


def test_incomplete_spool_line_is_read_once_complete(
    tmp_path: Path, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(tmp_path / "steps" / "mine")
    tracker.metrics({"loss": 0.5}, step=1)
    assert watched("mine").endswith("step 1 loss 0.5000")
    point = json.dumps({"type": "metric", "key": "loss", "value": 0.125, "step": 2, "at": 0})
    with tracker.path.open("a") as file:
        file.write("{torn\n" + point[:20])
    assert watched("mine").endswith("step 1 loss 0.5000")
    with tracker.path.open("a") as file:
        file.write(point[20:] + "\n")
    read: list[str] = []
    real = json.loads
    monkeypatch.setattr(progress.json, "loads", lambda text: read.append(text) or real(text))
    assert watched("mine").endswith("step 2 loss 0.1250")
    assert watched("mine").endswith("step 2 loss 0.1250")
    assert [text.decode() for text in read] == [point]


def test_the_line_of_clean_names_lost_records_and_rules() -> None:
    metrics = {
        "records.in": 214.0,
        "records.rejected.language": 4.0,
        "records.rejected.contaminated": 190.0,
        "records.out": 20.0,
    }
    record = StepRecord(step="clean", status="done", cache_hit=True, metrics=metrics)
    assert step_line(record).endswith("(cached)  214 → 20 records (contaminated 190, language 4)")


def test_the_line_of_ingest_names_quarantined_rows() -> None:
    record = StepRecord(step="ingest", status="done", metrics={"rows_read": 1200.0, "quarantined": 7.0})
    assert step_line(record).endswith("  1,200 rows read, 7 quarantined")


def test_the_line_of_a_step_that_lost_nothing_is_short() -> None:
    record = StepRecord(step="clean", status="done", metrics={"records.in": 9.0, "records.out": 9.0})
    assert step_line(record).endswith("0.0 s")

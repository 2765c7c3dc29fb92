"""What a real run leaves for the pipelines UI: plan, funnel, curves, scores, reasons, metrics."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.jsonl import read_jsonl
from embedline.dag import STEPS
from embedline.execution.kfp_component import PAGE_BYTES, UI_BYTES
from embedline.markdown import cell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HOSTILE = "a|b <img src=x onerror=alert(1)> `c`"
TASKS = {"prune_before": "prune", "prune_after": "prune-2"}


class Shown:
    """A finished run as the UI sees it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        (self.folder,) = (run / ".kfp").iterdir()

    def file(self, step: str, name: str) -> str:
        return (self.folder / TASKS.get(step, step.replace("_", "-")) / name).read_text(encoding="utf-8")

    def metrics(self, step: str) -> dict[str, float]:
        made = json.loads(self.file(step, "executor_output.json"))["artifacts"]["metrics"]["artifacts"]
        values: dict[str, float] = made[0]["metadata"]
        return values

    def output(self, step: str, output: str) -> Path:
        record = json.loads((self.run / "steps" / step / "record.json").read_text(encoding="utf-8"))
        return self.run.parent / str(record["outputs"][output]["path"])


@pytest.fixture(scope="module")
def ui(line: Any) -> Shown:
    ended = line.run(
        data__sources__0__name=f"'{HOSTILE}'",
        pretrain__log_every=5,
        gate__rules='[{set: "*", min: 0.001}, {set: SupportSTS, min: -1.0}]',
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Shown((line.work / "latest").resolve())


def test_the_plan_names_every_step(ui: Shown) -> None:
    text = ui.file("preflight", "summary")
    assert all(f"| {step} | " in text for step in STEPS)


def test_everything_fits_and_no_name_is_more_than_words(ui: Shown) -> None:
    for step in ("preflight", *STEPS):
        text = ui.file(step, "summary")
        assert 0 < len(text.encode()) <= UI_BYTES, step
        assert "<img" not in text
    for step in ("ingest", "clean", "train_unsupervised"):
        assert f"| {cell(HOSTILE)} |" in ui.file(step, "summary"), step


def test_the_funnel_counts_what_was_kept(ui: Shown) -> None:
    manifest = json.loads((ui.output("clean", "dataset") / "manifest.json").read_text(encoding="utf-8"))
    kept = sum(stage["rows_out"] for stage in manifest["metadata"]["funnel"]["records"].values())
    total = next(row for row in ui.file("clean", "summary").splitlines() if "**total**" in row)
    assert total.rstrip(" |").endswith(f" {kept}")
    assert ui.metrics("clean")["records.out"] == kept


@pytest.mark.parametrize("step", ["pretrain", "train_unsupervised", "train_supervised", "prune_after"])
def test_training_shows_its_course_and_its_last_loss(ui: Shown, step: str) -> None:
    page = ui.file(step, "curves")
    assert "<figcaption>loss</figcaption><svg" in page.replace("\n", "")
    assert len(page.encode()) < PAGE_BYTES
    parser = HTMLParser()
    parser.feed(page)
    spool = [json.loads(line) for line in (ui.run / "steps" / step / "spool.jsonl").read_text().splitlines()]
    losses = {
        line["step"]: line["value"] for line in spool if line["type"] == "metric" and line["key"] == "loss"
    }
    assert ui.metrics(step)["loss"] == losses[max(losses)]


def test_a_step_that_is_off_says_so(ui: Shown) -> None:
    assert "Nothing to draw" in ui.file("prune_before", "curves")


def test_scores_stand_side_by_side(ui: Shown) -> None:
    rows = read_jsonl(ui.output("evaluate", "scores") / "scores.jsonl")
    text = ui.file("evaluate", "summary")
    head = text.splitlines()[0]
    assert all(name in head for name in ("bm25", "untrained", "train_supervised", "candidate"))
    best = next(
        row for row in rows if row["model"] == "bm25" and row["set"] == "SupportQA_ru" and row["main"]
    )
    line = next(line for line in text.splitlines() if line.startswith("| SupportQA_ru |"))
    assert f"{best['value']:.3f}" in line


def test_the_gate_gives_all_its_reasons(ui: Shown) -> None:
    verdict = json.loads((ui.output("gate", "verdict") / "verdict.json").read_text(encoding="utf-8"))
    text = ui.file("gate", "summary")
    assert verdict["reasons"]
    assert all(cell(reason["text"]) in text for reason in verdict["reasons"])
    assert ui.metrics("gate")["passed"] == 1.0


def test_every_step_has_finite_figures(ui: Shown) -> None:
    for step in STEPS:
        values = ui.metrics(step)
        assert values["seconds"] >= 0
        assert all(math.isfinite(value) for value in values.values()), step
    for step in ("mine", "export", "evaluate", "promote"):
        assert len(ui.metrics(step)) > 1, step


def test_the_report_is_shown_whole(ui: Shown) -> None:
    page = ui.file("report", "page")
    assert page == (ui.run / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < PAGE_BYTES
    assert "<img" not in page

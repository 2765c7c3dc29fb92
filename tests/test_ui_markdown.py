"""What the pipelines UI shows stays within what it displays, and no name in it can do anything."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.artifacts.curves import read_curves, read_metric_series, write_curves
from embedline.artifacts.scores import ScoreRow
from embedline.data.funnel import Funnel
from embedline.evaluation.compare import markdown
from embedline.evaluation.curves import MOST_CHARTS, curves_page
from embedline.execution import kfp_component as component
from embedline.markdown import CELL_CHARS, cell, shown, table
from embedline.planning.plan import Plan, PlannedStep

HOSTILE = "a|b\n| c <img src=x onerror=alert(1)> [click](javascript:alert(1)) `**x**` </script><script>&lt;"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def _unescaped(text: str, mark: str) -> int:
    return sum(text[i] == mark and (i == 0 or text[i - 1] != "\\") for i in range(len(text)))


@given(st.text())
def test_a_name_is_one_cell_of_plain_words(text: str) -> None:
    made = cell(text)
    assert "\n" not in made
    assert "<" not in made
    plain = made.replace("\\\\", "")
    assert not any(_unescaped(plain, mark) for mark in "|`*[]~")
    assert len(made) <= 6 * CELL_CHARS


@given(st.text(), st.integers(100, 400))
def test_shown_text_is_within_its_limit_and_holds_no_tag(text: str, limit: int) -> None:
    made = shown(text, limit)
    assert len(made.encode()) <= limit
    assert not Tags(made).tags
    if len(text.encode()) < limit / 4:
        assert "cut here" not in made


def test_a_table_has_as_many_cells_in_every_row() -> None:
    lines = table(["a", "b"], [[HOSTILE, 1], ["x", HOSTILE]]).splitlines()
    assert len(lines) == 4
    assert {_unescaped(line, "|") for line in lines} == {3}


def test_a_table_aligns_columns_and_leaves_markdown_cells_alone() -> None:
    made = table(["name", "rows"], [["`a`", 1]], align="lr", escape=False)
    assert made == "| name | rows |\n|---|---:|\n| `a` | 1 |"


def test_hostile_names_of_sources_and_sets_break_no_table() -> None:
    funnel = Funnel()
    stage = funnel.counts("records", HOSTILE)
    stage.rows_in = stage.rows_out = 3
    rows = [
        ScoreRow(model=model, set=HOSTILE, kind="retrieval", metric="ndcg@10", main=True, value=0.5, dim=8)
        for model in ("bm25", "candidate")
    ]
    for text in (funnel.markdown(), markdown(rows)):
        assert "<img" not in text
        assert "](javascript" not in text.replace("\\]", "")
        assert len({_unescaped(line, "|") for line in text.splitlines()}) == 1, text


def test_a_plan_names_every_step_and_its_notes() -> None:
    steps = [PlannedStep("ingest", "cached", "k", 3.0), PlannedStep("mine", "runs", None, 12.4)]
    plan = Plan("r", "demo", HOSTILE, {}, {}, {}, steps, [f"beware {HOSTILE}"])
    text = plan.markdown()
    assert "| mine | runs | about 12 s |" in text
    assert "note: beware" in text
    assert "<img" not in text


def test_curves_are_one_safe_page_however_many_there_are() -> None:
    many = {f"{HOSTILE} {n}": [(float(x), x / 7) for x in range(300)] for n in range(40)} | {
        "loss": [(0.0, 2.0), (10.0, 1.0)]
    }
    page = curves_page("train_supervised", many)
    tags = Tags(page)
    assert page.index("loss</figcaption>") < page.index("a|b")
    assert tags.tags.count("figure") == MOST_CHARTS
    assert not {"script", "img", "a", "iframe", "link"} & set(tags.tags)
    assert not [name for name in tags.attributes if name.startswith("on") or name in {"src", "href"}]
    assert "default-src 'none'" in page
    assert len(page.encode()) < 100_000
    assert "Nothing to draw" in curves_page("mine", {})


def test_curves_are_metrics_with_more_than_one_value(tmp_path: Path) -> None:
    from embedline.artifacts.tracker import Tracker

    tracker = Tracker(tmp_path)
    for step in (1, 3, 2):
        tracker.metrics({"loss": 4.0 / step}, step=step)
    tracker.metrics({"rows": 3.0})
    for step in range(5000):
        tracker.metrics({"long": float(step)}, step=step)
    found = read_metric_series(tmp_path)
    assert found["loss"] == [(1, 4.0), (2, 2.0), (3, 4.0 / 3)]
    assert "rows" not in found
    assert len(found["long"]) <= 300
    assert (found["long"][0], found["long"][-1]) == ((0, 0.0), (4999, 4999.0))
    write_curves(tmp_path, found)
    assert read_curves(tmp_path) == found


@pytest.mark.parametrize("size", [1000, component.PAGE_BYTES + 1])
def test_a_report_too_large_for_the_ui_is_replaced_by_its_path(tmp_path: Path, size: int) -> None:
    report, page = tmp_path / "report.html", tmp_path / "page"
    report.write_text("x" * size)
    component._show_page(report, page)
    assert page.stat().st_size < component.PAGE_BYTES
    assert (str(report) in page.read_text()) == (size > component.PAGE_BYTES)


def test_an_endless_summary_is_cut_where_the_ui_would_cut_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedline.artifacts.record import StepRecord

    rows = "\n".join(f"| источник {n} | <b>{n}</b> |" for n in range(20_000))
    record = StepRecord(step="clean", status="done", key="k", summary=rows)
    monkeypatch.setattr(component, "execute", lambda *_, **__: record)
    metrics = SimpleNamespace(log_metric=lambda *_: None)
    summary: Any = SimpleNamespace(path=str(tmp_path / "summary"))
    component.run_component(
        "clean", "{}", str(tmp_path), "r", inputs={}, outputs={}, metrics=metrics, summary=summary
    )
    text = (tmp_path / "summary").read_text(encoding="utf-8")
    assert 40_000 < len(text.encode()) <= component.UI_BYTES == 50_000
    assert "the whole of it is in run.json" in text
    assert "<b>" not in text
    assert json.dumps(text)

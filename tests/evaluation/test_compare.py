from dataclasses import replace

import pytest

from embedline.artifacts.scores import ScoreRow, write_score_rows
from embedline.dag import STEPS, Step
from embedline.evaluation.compare import (
    all_columns,
    dims_table,
    main_table,
    markdown,
    stage_inputs,
    stage_table,
)
from embedline.evaluation.report import ReportData, render_report
from embedline.evaluation.summary import stage_gains


def row(model, value, name="A", **more):
    usual = {"kind": "retrieval", "metric": "ndcg@10", "main": True, "dim": 64, "runtime": "torch"}
    return ScoreRow(model=model, set=name, value=value, **(usual | more))


ROWS = [
    row("candidate", 0.7),
    row("candidate", 0.6, dim=16),
    row("candidate", 0.69, runtime="onnx-int8"),
    row("candidate", 0.9, metric="recall@10", main=False),
    row("bm25", 0.3, dim=0),
    row("pretrain", 0.1),
    row("candidate", 0.5, "B"),
    row("bm25", 0.4, "B", dim=0),
    row("pretrain", 0.2, "B"),
    row("candidate", 0.8, "C"),
    row("candidate", 0.75, "S", kind="sts", metric="spearman"),
]


def test_the_mean_is_over_sets_that_every_stage_was_scored_on():
    compared = stage_table(ROWS)
    assert compared.shared == ("A", "B")
    assert compared.values["candidate"] == {"A": 0.7, "B": 0.5, "C": 0.8}
    assert compared.means == {"bm25": 0.35, "pretrain": (0.1 + 0.2) / 2, "candidate": 0.6}
    assert list(compared.values) == list(compared.means)


def test_a_new_training_step_becomes_a_stage_and_a_column(monkeypatch):
    evaluate = STEPS["evaluate"]
    distil = Step("distil", {"model": ()}, outputs={"model": "model"}, kind="trains")
    inputs = {"distilled": "distil.model", **evaluate.inputs}
    monkeypatch.setitem(STEPS, "distil", distil)
    monkeypatch.setitem(STEPS, "evaluate", replace(evaluate, inputs=inputs))
    assert stage_inputs()["distilled"] == "distil"
    assert "distil" in all_columns()
    assert stage_table([*ROWS, row("distil", 0.25)]).values["distil"] == {"A": 0.25}


def test_columns_follow_the_line():
    assert all_columns() == (
        *("bm25", "untrained", "base", "pretrain", "train_unsupervised", "train_supervised"),
        *("candidate", "champion", "onnx-fp32", "onnx-int8"),
    )


def test_the_table_shows_full_width_and_keeps_onnx_apart():
    cells = main_table(ROWS)["A", "ndcg@10"]
    assert {name: cell.value for name, cell in cells.items()} == {
        "candidate": 0.7,
        "onnx-int8": 0.69,
        "bm25": 0.3,
        "pretrain": 0.1,
    }
    assert "| S | spearman |  |  | 0.750 |  |" in markdown(ROWS)


def test_dims_are_listed_from_the_widest():
    assert list(dims_table(ROWS)) == ["A"]
    assert list(dims_table(ROWS)["A"]) == [64, 16]


def test_nothing_to_compare_is_no_error():
    assert [stage_table([]).means, main_table([]), dims_table([])] == [{}, {}, {}]


@pytest.mark.parametrize("champion", [0.6, None])
def test_run_record_and_report_show_the_same_means(tmp_path, champion):
    rows = [*ROWS, *([row("champion", champion, name) for name in "AB"] if champion else [])]
    write_score_rows(tmp_path, rows)
    gains, page = stage_gains(tmp_path), render_report(ReportData("n", "r", "t", scores=rows))
    assert gains["candidate"] == {"A": 0.7, "B": 0.5, "C": 0.8, "mean": 0.6}
    means = [f"{gains[stage]['mean']:.3f}" for stage in ("bm25", "pretrain", "candidate")]
    cells = "".join(f'<td class="number">{mean}</td>' for mean in means)
    assert cells in page.replace("\n", "").replace("  ", "")

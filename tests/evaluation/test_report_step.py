import json

import pyarrow as pa
import pyarrow.parquet as pq

from embedline.artifacts.curves import read_metric_series, write_curves
from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.record import StepRecord, write_record
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.steps import report
from embedline.steps.context import Context, StepConfig


def context(tmp_path, **inputs):
    draft = tmp_path / "draft"
    draft.mkdir(exist_ok=True)
    return Context(
        "report",
        "key",
        StepConfig(config={"name": "support", "description": "Поиск по <документации>"}),
        inputs,
        Workspace(tmp_path),
        "support-1",
        Tracker(tmp_path / "spool"),
        draft,
    )


def artifact(folder, kind, files=None, metadata=None):
    folder.mkdir(exist_ok=True)
    for name, content in (files or {}).items():
        (folder / name).write_text(content, encoding="utf-8")
    return write_manifest(folder, kind=kind, step=kind, key="k", metadata=metadata)


def test_a_run_without_outputs_still_has_a_report(tmp_path):
    names = ("dataset", "triplets", "onnx", "scores", "verdict", "promotion")
    report.run(context(tmp_path, **dict.fromkeys(names)))
    page = (tmp_path / "draft" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Поиск по &lt;документации&gt;" in page
    assert 'class="verdict no_verdict"' in page


def test_everything_a_run_made_is_in_its_report(tmp_path):
    work = Workspace(tmp_path)
    for step, done in (("pretrain", {}), ("clean", {"cache_hit": True})):
        folder = work.step_folder("support-1", step)
        write_record(folder, StepRecord(step=step, status="done", seconds=61.25, peak_memory_mb=1234, **done))
        tracker = Tracker(folder)
        for at, loss in ((10, 4.5), (20, 3.5)) if step == "pretrain" else ():
            tracker.metrics({"loss": loss, "learning_rate": 0.1}, step=at)
        write_curves(folder, read_metric_series(folder))
    row = {"model": "candidate", "set": "Вопросы", "kind": "retrieval", "metric": "ndcg@10", "main": True}
    row |= {"value": 0.7375, "low": 0.6875, "high": 0.7875, "count": 80, "dim": 64, "runtime": "torch"}
    mined = tmp_path / "triplets"
    mined.mkdir()
    pq.write_table(
        pa.table(
            {
                "id": ["a", "a", "b"],
                "strategy": ["model", "bm25", "model"],
                "rank": [3, 5, 9],
                "score": [0.25, 0.125, 0.25],
                "positive_score": [0.5] * 3,
            }
        ),
        mined / "mining.parquet",
    )
    funnel = {"records": {"faq": {"rows_in": 1000, "rows_out": 900, "rejected": {"exact_duplicate": 100}}}}
    verdict = {"passed": False, "reasons": [{"rule": "rules.0.min", "passed": False, "text": "Too low."}]}
    promotion = {"model": "support", "version": 4, "aliases": ["champion"], "moved": False}
    parity = {"passed": True, "texts": 8, "variants": {"int8": {"worst_cosine": 0.98765, "passed": True}}}
    report.run(
        context(
            tmp_path,
            dataset=artifact(tmp_path / "dataset", "dataset", {"records": ""}, {"funnel": funnel}),
            triplets=artifact(mined, "triplets"),
            onnx=artifact(tmp_path / "onnx", "onnx", {"parity.json": json.dumps(parity)}),
            scores=artifact(tmp_path / "scores", "scores", {"scores.jsonl": json.dumps(row) + "\n"}),
            verdict=artifact(tmp_path / "verdict", "verdict", {"verdict.json": json.dumps(verdict)}),
            promotion=artifact(
                tmp_path / "promotion", "promotion", {"promotion.json": json.dumps(promotion)}
            ),
        )
    )
    page = (tmp_path / "draft" / "report" / "report.html").read_text(encoding="utf-8")
    for expected in ("0.738", "0.688–0.787", "Too low.", "0.9877", "champion", "exact duplicate", "61.2"):
        assert expected in page, expected
    assert "Вопросы" in page
    assert "1\u202f234" in page
    assert page.count("<polyline") == 1
    assert "<dd>5</dd>" in page  # the median rank
    cells = page[page.index("текущая модель") :].replace('<td class="number">', " ")
    assert "2</td> 2</td> 6</td> 0.250</td> 0.500</td>" in cells
    assert "1</td> 1</td> 5</td> 0.125</td> 0.500</td>" in cells


def test_a_damaged_spool_and_one_point_make_no_curve(tmp_path):
    folder = Workspace(tmp_path).step_folder("support-1", "pretrain")
    write_record(folder, StepRecord(step="pretrain", status="failed"))
    Tracker(folder).metrics({"loss": 1.0}, step=1)
    with (folder / "spool.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"type": "metric", "key": "lo')
    report.run(context(tmp_path))
    page = (tmp_path / "draft" / "report" / "report.html").read_text(encoding="utf-8")
    assert "<polyline" not in page
    assert "ошибка" in page

"""The steps ingest and clean: plain paths in, artefact folders, counts and a summary out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.dag import STEPS
from embedline.data.tables import read_rows
from embedline.steps import clean, ingest
from embedline.steps.context import Context, StepConfig, StepResult

QUESTION = "Как напечатать этикетки волны на складе номер два?"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    rows: list[dict[str, Any]] = [
        {"query": f"вопрос номер {i}", "pos": [f"ответ на вопрос {i}"]} for i in range(4)
    ]
    rows += [{"query": QUESTION, "pos": ["Откройте раздел печати."]}, {"query": "без ответа"}]
    rows += [{"query": "how to print", "pos": ["Press the print button."], "lang": "en"}]
    data = tmp_path / "data"
    (data / "held").mkdir(parents=True)
    (data / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "held" / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "Раздел печати"}))
    (data / "held" / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": QUESTION}))
    (data / "held" / "qrels.tsv").write_text("q\td\t1\n")
    return RunConfig.model_validate(
        {
            "name": "t",
            "data": {"sources": [{"path": "faq.jsonl"}], "evaluation": [{"path": "held"}]},
            "teacher": {"model": "none", "languages": ["en"]},
        }
    )


def context(
    step: str, config: RunConfig, tmp_path: Path, inputs: dict[str, Artifact | None], *sections: str
) -> Context:
    draft = tmp_path / "draft" / step
    draft.mkdir(parents=True)
    values = config.model_dump(mode="json")
    locations = {"root": str(tmp_path / "data"), "teacher": str(tmp_path / "teacher")}
    values["data.sources"] = values["data"]["sources"]
    parsed = StepConfig(config={name: values[name] for name in sections}, locations=locations)
    tracker = Tracker(tmp_path / "spool" / step)
    return Context(step, "key", parsed, inputs, Workspace(tmp_path / "work"), "run", tracker, draft)


def sealed(place: Context, result: StepResult, kind: str) -> Artifact:
    counts = result.counts[kind]
    return write_manifest(place.output(kind), kind=kind, step=place.step, key="key", counts=counts)


def test_ingest_then_clean(tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = context("ingest", config, tmp_path, {}, "data")
    read = ingest.run(first)
    expected = {"rows_read": 7, "records": 6, "passages": 0, "quarantined": 1, "left_out": 0}
    assert read.metrics | expected == read.metrics
    assert read.counts["evaluation"] == {"held": 1}
    assert "| faq | records | 7 | 6 | 1 | 0 |" in read.summary
    assert "| held | retrieval | ru | 1 |" in read.summary

    monkeypatch.setattr(
        clean, "_teacher", lambda _: lambda texts, *_: np.eye(len(texts), 4, dtype=np.float32)
    )
    inputs: dict[str, Artifact | None] = {k: sealed(first, read, k) for k in ("dataset", "evaluation")}
    second = context("clean", config, tmp_path, inputs, *STEPS["clean"].reads)
    cleaned = clean.run(second)
    assert cleaned.counts["dataset"] == {"records": 5, "passages": 0, "rejected": 1, "rejected_passages": 0}
    assert cleaned.metrics["records.rejected.evaluation_query"] == 1
    assert "| **total** | 6 |" in cleaned.summary
    assert len(list(read_rows(second.output("dataset") / "records.parquet"))) == 5
    names = sorted(path.name for path in second.output("dataset").iterdir())
    assert names == [
        "corpus.parquet",
        "funnel.json",
        "records.parquet",
        "rejected.parquet",
        "rejected_corpus.parquet",
    ]
    json.dumps([read.metadata, cleaned.metadata])

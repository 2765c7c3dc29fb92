from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.export.runtime import OnnxEmbedder
from embedline.models.folder import save_embedder
from embedline.retrieval.fusion import Fusion, read_fusion, write_fusion
from embedline.steps.context import Context, StepConfig
from embedline.steps.export import parity_texts, run


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation"
    sets = [
        {"name": "faq", "kind": "retrieval", "language": "ru", "task_type": "short-long", "count": 30},
        {"name": "sts", "kind": "sts", "language": "en", "task_type": "sts", "count": 3},
    ]
    for entry in sets:
        (folder / entry["name"]).mkdir(parents=True)
    (folder / "sets.json").write_text(json.dumps(sets), encoding="utf-8")
    queries = {"id": [str(i) for i in range(30)], "text": [f"вопрос {i}" for i in range(30)]}
    pq.write_table(pa.table(queries), folder / "faq" / "queries.parquet")
    corpus = {"id": ["a", "b"], "title": ["", ""], "text": ["ответ один", "ответ два"]}
    pq.write_table(pa.table(corpus), folder / "faq" / "corpus.parquet")
    pairs = {"sentence1": ["a b", "c d", "e f"], "sentence2": ["b a", "d c", "f e"], "score": [0.1, 0.5, 1]}
    pq.write_table(pa.table(pairs), folder / "sts" / "pairs.parquet")
    return folder


def test_texts_come_from_every_set_and_never_change(evaluation):
    texts = parity_texts(evaluation, 10)
    assert texts == parity_texts(evaluation, 10)
    assert len(texts) == 10
    assert sum(text.startswith(("вопрос", "ответ")) for text in texts) == 5


def test_no_evaluation_sets_give_no_texts(evaluation):
    (evaluation / "sets.json").write_text("[]", encoding="utf-8")
    assert parity_texts(evaluation, 10) == []


def test_the_step_passes_with_a_failed_parity_for_the_gate(make_embedder, evaluation, tmp_path):
    model = tmp_path / "model"
    save_embedder(make_embedder("bert", num_hidden_layers=1), model)
    write_fusion(Fusion("rrf", ("dense", "bm25")), model)
    config = RunConfig.model_validate(
        {
            "name": "t",
            "data": {"sources": [{"path": "a.jsonl"}]},
            # No int8 model reaches a cosine of 1.
            "export": {"parity_texts": 12, "min_cosine_int8": 1.0, "int8_scales": "batch"},
        }
    ).model_dump()
    context = Context(
        step="export",
        key="k",
        step_config=StepConfig(config=config),
        inputs={
            "model": write_manifest(model, kind="model", step="train", key="k"),
            "evaluation": write_manifest(evaluation, kind="evaluation", step="ingest", key="k"),
        },
        workspace=Workspace(tmp_path / "work"),
        run="r",
        tracker=Tracker(tmp_path / "steps"),
        draft=tmp_path,
    )
    result = run(context)
    parity = json.loads((tmp_path / "onnx" / "parity.json").read_text(encoding="utf-8"))
    assert parity["passed"] is False
    assert {name: v["passed"] for name, v in parity["variants"].items()} == {"fp32": True, "int8": False}
    assert result.metrics["parity_passed"] == 0
    assert result.metrics["fp32_worst_cosine"] > 0.9999
    assert "onnx-int8" in result.summary
    found = parity["variants"]["int8"]["batch_cosine"]
    assert result.metrics["int8_batch_cosine"] == found
    assert f"{found:.5f}" in result.summary
    assert f"{found:.4f}" in (tmp_path / "onnx" / "README.md").read_text(encoding="utf-8")
    assert not OnnxEmbedder(tmp_path / "onnx", "int8").alone
    assert read_fusion(tmp_path / "onnx") == Fusion("rrf", ("dense", "bm25"))
    card = json.loads((model / "embedline.json").read_text(encoding="utf-8"))
    for variant in ("fp32", "int8"):
        assert OnnxEmbedder(tmp_path / "onnx", variant).index_version == card["index_version"]

"""The evaluate step: which models are scored, under which names, and none of them twice."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from embedline.artifacts.manifest import folder_digest, write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.evaluation import EvaluateConfig
from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.steps import evaluate
from embedline.steps.context import Context, StepConfig


@pytest.fixture
def line(tmp_path, evaluation_folder, tiny_model, monkeypatch):
    """Run the step on models of given seeds; the last value it returns is what it had to score."""
    models = {}
    scored = []
    honest = evaluate.score_request

    def watched(request, settings):
        scored.append(request.role)
        return honest(request, settings)

    monkeypatch.setattr(evaluate, "score_request", watched)

    def model(seed, step, **more):
        if (seed, step) not in models:
            folder = tmp_path / f"model-{seed}-{step}"
            shutil.copytree(tiny_model(seed, **more), folder)
            models[seed, step] = write_manifest(folder, kind="model", step=step, key="k")
        return models[seed, step]

    laid_out = tmp_path / "evaluation"
    shutil.copytree(evaluation_folder, laid_out)
    evaluation = write_manifest(laid_out, kind="evaluation", step="ingest", key="k")

    def run(pins=None, locations=None, name="run", config=None, fusion=None, **inputs):
        scored.clear()
        settings = EvaluateConfig(**{"bootstrap": 20, **(config or {})})
        sections = {
            "evaluate": settings.model_dump(),
            "prompts": {"default": {"query": "run: ", "document": ""}},
            "runtime": RuntimeConfig().model_dump(),
            "fusion": fusion,
        }
        empty = dict.fromkeys(("pretrained", "unsupervised", "supervised", "onnx"))
        draft = tmp_path / name
        draft.mkdir(exist_ok=True)
        context = Context(
            "evaluate",
            "key",
            StepConfig(config=sections, pins=pins or {}, locations=locations or {}),
            {**empty, "evaluation": evaluation, **inputs},
            Workspace(tmp_path / "work"),
            name,
            Tracker(tmp_path / "spool" / name),
            draft,
        )
        result = evaluate.run(context)
        lines = (draft / "scores" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
        return result, [json.loads(line) for line in lines], list(scored)

    run.model = model
    return run


def seen(rows):
    return list(dict.fromkeys(row["model"] for row in rows))


def test_a_line_from_scratch_scores_every_stage_and_an_untrained_twin(line):
    stages = {
        "pretrained": line.model(1, "pretrain"),
        "unsupervised": line.model(2, "train_unsupervised"),
        "supervised": line.model(3, "train_supervised"),
        "candidate": line.model(3, "train_supervised"),
    }
    result, rows, scored = line(**stages)
    roles = ["candidate", "bm25", "untrained", "pretrain", "train_unsupervised", "train_supervised"]
    assert seen(rows) == roles
    assert scored == roles[:-1]  # the last stage's model is the candidate
    assert not result.reused
    by_model = {(r["model"], r["set"], r["dim"]): r["value"] for r in rows if r["main"]}
    assert by_model["train_supervised", "Questions", 32] == by_model["candidate", "Questions", 32]
    assert ("candidate", "Questions", 8) in by_model
    assert ("pretrain", "Questions", 8) not in by_model
    assert ("bm25", "Questions", 0) in by_model
    assert result.metrics["candidate/Questions/main"] == by_model["candidate", "Questions", 32]


def test_a_fusion_adds_a_hybrid_score_to_every_model_and_is_part_of_their_keys(line):
    candidate, base = line.model(1, "train_supervised"), line.model(5, "outside").path
    pins, places = {"base": folder_digest(base)}, {"base": str(base)}
    _, rows, _ = line(pins, places, candidate=candidate)
    assert {row["head"] for row in rows} == {"dense"}
    fusion = {"method": "convex", "legs": ["dense", "bm25"]}
    _, rows, scored = line(pins, places, candidate=candidate, fusion=fusion, name="second")
    hybrid = {(row["model"], row["set"]) for row in rows if row["head"] == "hybrid"}
    assert hybrid == {("candidate", "Questions"), ("base", "Questions")}
    assert scored == ["candidate", "base"]  # BM25 is the same
    _, _, scored = line(pins, places, candidate=candidate, fusion=fusion | {"method": "rrf"}, name="third")
    assert scored == ["candidate", "base"]


def test_nothing_is_scored_again_when_nothing_changed(line):
    candidate = line.model(1, "train_supervised")
    _, first, _ = line(candidate=candidate)
    result, again, scored = line(candidate=candidate, name="second")
    assert (result.reused, scored) == (True, [])
    assert again == first


def test_damaged_scores_are_made_again(line, tmp_path):
    candidate = line.model(1, "train_supervised")
    _, first, scored = line(candidate=candidate)
    damaged = 0
    for rows in (tmp_path / "work").glob(".embedline/store/scores/*/scores/scores.jsonl"):
        before, text = rows.stat(), rows.read_text(encoding="utf-8")
        rows.write_text(text.replace('"value": 0.', '"value": 1.'), encoding="utf-8")
        os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert rows.stat().st_size == before.st_size
        damaged += text != rows.read_text(encoding="utf-8")
    assert damaged == len(scored)
    result, second, again = line(candidate=candidate)
    assert (again, result.reused) == (scored, False)
    assert second == first


def test_a_base_and_a_champion_that_changed_since_preflight_are_not_scored(line, tmp_path):
    base, champion = line.model(7, "base").path, line.model(8, "train_supervised")
    (base / "manifest.json").unlink()
    pins = {"base": folder_digest(base), "champion": {"version": 1, "digest": champion.digest}}
    locations = {"base": str(base), "champion": str(champion.path)}
    candidate = line.model(1, "train_supervised")
    (base / "extra.txt").write_text("another model")
    with pytest.raises(InputError, match="the input base has changed since the run was planned"):
        line(pins, locations, candidate=candidate)
    (base / "extra.txt").unlink()
    weights = champion.path / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(InputError, match="the file has changed since it was written"):
        line(pins, locations, candidate=candidate)


def test_cached_evaluation_and_report_import_no_heavy_libraries():
    modules = ("steps.evaluate", "steps.report", "evaluation.untrained", "evaluation.score_files")
    program = "".join(f"import embedline.{module}\n" for module in modules)
    program += "import sys; sys.exit(bool({'torch', 'mteb', 'transformers', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_new_candidate_leaves_the_champion_and_the_base_unscored(line, tmp_path):
    old = line.model(1, "train_supervised")
    base = line.model(5, "outside").path
    pins = {"base": folder_digest(base), "champion": {"version": 1, "digest": old.digest}}
    places = {"base": str(base), "champion": str(old.path)}
    result, rows, scored = line(pins, places, candidate=old)
    assert (seen(rows), scored) == (["candidate", "bm25", "base", "champion"], ["candidate", "bm25", "base"])
    result, rows, scored = line(pins, places, name="next", candidate=line.model(2, "train_supervised"))
    assert (seen(rows), scored) == (["candidate", "bm25", "base", "champion"], ["candidate"])
    assert not result.reused
    per_query = pq.read_table(tmp_path / "next" / "scores" / "per_query.parquet")
    assert set(per_query["model"].to_pylist()) == {"candidate", "bm25", "base", "champion"}


def test_a_stage_that_is_switched_off_has_no_rows(line):
    kept = line.model(1, "pretrain")
    _, rows, _ = line(
        pretrained=kept, unsupervised=kept, supervised=kept, candidate=line.model(2, "prune_after")
    )
    assert seen(rows) == ["candidate", "bm25", "untrained", "pretrain"]


def test_stages_are_scored_on_stage_sets(line):
    stages = {"pretrained": line.model(1, "pretrain"), "candidate": line.model(1, "pretrain")}
    _, rows, scored = line(config={"stage_sets": ["sts"]}, **stages)
    assert {row["set"] for row in rows if row["model"] == "pretrain"} == {"sts", "unrelated texts"}
    assert "pretrain" not in scored
    with pytest.raises(InputError, match="there is no evaluation set 'stss'"):
        line(config={"stage_sets": ["stss"]}, **stages)


def test_third_party_models_are_scored_with_the_runs_prompts(line, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(line.model(4, "x").path, outside)
    (outside / "embedline.json").unlink()
    pins = {"base": folder_digest(outside)}
    _, rows, _ = line(pins, {"base": str(outside)}, candidate=line.model(1, "train_supervised"))
    prompts = {row["model"]: row["prompt"] for row in rows if row["set"] == "Questions"}
    assert prompts == {"base": "'run: ' / ''", "candidate": "'q: ' / 'd: '", "bm25": ""}


def test_mteb_tasks_run_from_local_copies_under_their_own_metrics(line, hub_copies):
    config = {"mteb_tasks": ["RUParaPhraserSTS"]}
    models = {"candidate": line.model(1, "x"), "pretrained": line.model(1, "pretrain")}
    pins = {"mteb": folder_digest(hub_copies)}
    result, rows, _ = line(pins, {"mteb": str(hub_copies)}, config=config, **models)
    row, baseline = [row for row in rows if row["set"] == "RUParaPhraserSTS"]
    assert baseline["model"] == "untrained", "a rule may compare with it"
    assert (row["model"], row["main"], row["count"]) == ("candidate", True, 8)
    assert result.metrics["candidate/mteb/RUParaPhraserSTS/main"] == row["value"]


def test_onnx_is_scored_at_full_width_on_its_sets(line, tmp_path):
    from embedline.export.onnx import export_onnx
    from embedline.models.folder import load_embedder

    candidate = line.model(1, "train_supervised")
    folder = tmp_path / "onnx"
    export_onnx(load_embedder(candidate.path).eval(), folder, 18)
    onnx = write_manifest(folder, kind="onnx", step="export", key="k")
    _, rows, _ = line(config={"onnx_sets": ["Questions"]}, candidate=candidate, onnx=onnx)
    exported = [row for row in rows if row["runtime"] == "onnx-fp32"]
    torch = {row["metric"]: row["value"] for row in rows if row["runtime"] == "torch" and row["dim"] == 32}
    assert {(row["model"], row["set"], row["dim"]) for row in exported} == {("candidate", "Questions", 32)}
    assert all(row["value"] == pytest.approx(torch[row["metric"]], abs=1e-6) for row in exported)


def test_heads_have_rows_and_metrics_of_their_own_and_per_query_values(line, tmp_path):
    heads = {"heads": ("dense", "lexical", "multi_vector"), "multi_vector_width": 40}
    stages = {name: line.model(3, "pretrain", **heads) for name in ("pretrained", "candidate")}
    result, rows, _ = line(**stages)
    for model in ("candidate", "pretrain", "untrained"):
        of = {(r["head"], r["dim"]) for r in rows if r["model"] == model and r["set"] == "Questions"}
        dense = {("dense", 32), ("dense", 8)} if model == "candidate" else {("dense", 32)}
        assert of == dense | {("lexical", 0), ("multi_vector", 40), ("hybrid", 0)}
    by_head = {r["head"]: r["value"] for r in rows if r["model"] == "candidate" and r["metric"] == "ndcg@10"}
    assert result.metrics["candidate/Questions/hybrid"] == by_head["hybrid"]
    assert "| candidate | dense | lexical | multi_vector | hybrid |" in result.summary
    per_query = pq.read_table(tmp_path / "run" / "scores" / "per_query.parquet")
    assert set(per_query["head"].to_pylist()) == {"dense", "lexical", "multi_vector", "hybrid"}


def test_only_the_candidate_is_scored_on_needles(line):
    config = {"needle_depths": [8, 20], "needle_documents": 4}
    stages = {"pretrained": line.model(3, "pretrain"), "candidate": line.model(1, "x")}
    result, rows, _ = line(config=config, **stages)
    found = [row for row in rows if row["kind"] == "needle"]
    assert {(r["model"], r["set"]) for r in found} == {("candidate", "Needle@8"), ("candidate", "Needle@20")}
    assert {(r["metric"], r["main"]) for r in found} == {
        ("recall@1", True),
        ("recall@1_needle_removed", False),
    }
    assert "candidate/Needle@8/main" in result.metrics
    assert line(config=config, name="again", **stages)[2] == []
    fewer = line(config={**config, "needle_documents": 3}, name="fewer", **stages)
    assert "candidate" in fewer[2]

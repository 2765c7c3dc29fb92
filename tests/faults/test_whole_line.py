"""The real line, end to end, with the real command: what it leaves, what it reuses, how it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.manifest import file_sha256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DAG = [
    "ingest",
    "clean",
    "prune_before",
    "pretrain",
    "train_unsupervised",
    "mine",
    "train_supervised",
    "prune_after",
    "export",
    "evaluate",
    "gate",
    "promote",
    "report",
]
KEPT = set(DAG[: DAG.index("evaluate")]) - {"prune_before"}  # what the store keeps; that one is off here


def test_refused_then_passed_then_reused(line: Any, watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # a user who has set neither HF_HUB_OFFLINE nor any library's telemetry
    monkeypatch.setattr(line, "variables", watched.environment)
    refused = line.run(gate__rules='[{set: "*", min: 0.999}]')
    assert refused.returncode == 3, refused.stdout + refused.stderr
    steps = line.steps()
    assert [name for name in steps if name in DAG] == DAG
    assert all(step["status"] == "done" for step in steps.values())
    assert not any(steps[name]["cache_hit"] for name in KEPT)
    assert line.record["exit_code"] == 3
    assert "0.999" in refused.stdout

    passed = line.run()  # another gate: only the gate and what follows it run again
    assert passed.returncode == 0, passed.stdout + passed.stderr
    steps = line.steps()
    assert all(steps[name]["cache_hit"] for name in KEPT | {"evaluate"})
    assert not steps["gate"]["cache_hit"]
    assert "champion" in passed.stdout

    again = line.run()
    assert again.returncode == 0, again.stdout + again.stderr
    steps = line.steps()
    assert all(steps[name]["cache_hit"] for name in KEPT | {"evaluate"})  # the gate met a new champion
    assert "already" in again.stdout
    _leaves_what_the_readme_says(line)
    _is_mirrored_once(line)
    assert watched.left_at_home() == set()
    assert watched.lookups() == set()


def test_a_damaged_model_is_made_again_and_the_true_one_is_registered(line: Any) -> None:
    assert line.run().returncode == 0
    registered = line.record["model"]
    damaged = [
        *line.work.glob(".embedline/store/train_supervised/*/model/model.safetensors"),
        *line.work.glob(".embedline/store/export/*/onnx/model_int8.onnx"),
        *line.work.glob(".embedline/store/clean/*/dataset/records.parquet"),
        *line.work.glob(".embedline/store/mine/*/triplets/*.parquet"),
        *line.work.glob(".embedline/store/scores/*/scores/scores.jsonl"),
    ]
    digests = {path: file_sha256(path) for path in damaged}
    assert len(digests) >= 6
    for path in damaged:
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(min(4096, before.st_size // 2))
            file.write(bytes(min(8192, before.st_size // 4)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = line.run()
    assert again.returncode == 0, again.stdout + again.stderr
    steps = line.steps()
    made = {"clean", "mine", "train_supervised", "export"}
    assert {
        name for name in KEPT if not steps[name]["cache_hit"] and not steps[name]["passed_through"]
    } == made
    models = [path for path in damaged if path.name == "model.safetensors"]
    assert {path: file_sha256(path) for path in models} == {path: digests[path] for path in models}
    assert line.record["model"]["digest"] == registered["digest"]


def _leaves_what_the_readme_says(line: Any) -> None:
    run = line.work / "latest"
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(run / "model")).encode(["привет"]).shape == (1, 64)
    assert (run / "onnx" / "model.onnx").is_file()
    assert (run / "onnx" / "model_int8.onnx").is_file()


def _is_mirrored_once(line: Any) -> None:
    from mlflow import MlflowClient

    from embedline.registry.tracking_target import read_tracking

    tracking = read_tracking(line.work / "latest")
    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = {
        run.info.run_id: run.data.tags["embedline.run_id"]
        for run in runs
        if "embedline.run_id" in run.data.tags and "mlflow.parentRunId" not in run.data.tags
    }
    assert len(parents) == 3
    for parent in parents:
        nested = [
            r.data.tags["embedline.step"] for r in runs if r.data.tags.get("mlflow.parentRunId") == parent
        ]
        assert sorted(nested) == sorted(set(nested)), "a step has two runs"
        assert set(DAG) <= set(nested)
    first = min(runs, key=lambda run: run.info.start_time)
    trained = next(
        run
        for run in runs
        if run.data.tags.get("embedline.step") == "train_unsupervised"
        and run.data.tags.get("mlflow.parentRunId") == first.info.run_id
    )
    history = client.get_metric_history(trained.info.run_id, "loss")
    assert len(history) == len({point.step for point in history}) > 1


def test_a_step_that_dies_of_its_own_leaves_nothing_half_written(line: Any) -> None:
    failed = line.run(unsupervised__learning_rate="1.0e+30", unsupervised__clip="1.0e+30")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "the loss is nan" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    steps = line.steps()
    assert steps["train_unsupervised"]["status"] == "failed"
    assert steps["pretrain"]["cache_hit"]
    assert not list((line.work / ".embedline" / "store").rglob("*.draft"))


def test_unusable_data_ends_with_code_2_and_names_the_line(line: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "один"}\n{"query": "два"}\n', encoding="utf-8")
    wrong = line.run(data__sources__0__path=path)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "rows.jsonl:1" in wrong.stdout + wrong.stderr


def test_a_batch_larger_than_the_data_ends_with_code_2(line: Any) -> None:
    wrong = line.run(unsupervised__batch=100_000)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "100000" in wrong.stdout + wrong.stderr

"""One step of a run done again, and its verdict under other settings, on real folders of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import read_artifact, write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_record
from embedline.artifacts.workspace import Workspace
from embedline.config.load import validate_config
from embedline.errors import InputError
from embedline.planning.pins import Pinned
from embedline.planning.step_configs import make_step_configs
from embedline.runs.finish import finish
from embedline.runs.rerun import rerun_gate, rerun_step

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "data": {"sources": [{"path": "pairs.jsonl"}]},
    "gate": {"rules": [{"set": "S", "min": 0.6}], "require_parity": False},
}


def _output(place: Workspace, step: str, kind: str, files: dict[str, str]) -> OutputRecord:
    folder = place.store.root / step / "key" / kind
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    artifact = write_manifest(folder, kind=kind, step=step, key="key")
    return OutputRecord(kind=kind, path=str(folder), digest=artifact.digest)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A run that scored 0.5 on its only set."""
    found, config = Workspace(tmp_path / "runs"), validate_config(CONFIG, where="test")
    folder = found.run_folder("one")
    pinned = Pinned(
        pins={"champion": None, "sources": {}, "evaluation": {}, "base": None, "teacher": None, "mteb": None}
    )
    write_json(
        folder / "plan.json",
        {"config": config.model_dump(mode="json"), "step_configs": make_step_configs(config, pinned)},
    )
    write_json(folder / "run.json", {"run": "one", "status": "refused"})
    row = {"model": "candidate", "set": "S", "kind": "retrieval", "metric": "ndcg@10", "main": True}
    scores = json.dumps({**row, "value": 0.5, "digest": "d"})
    outputs = {
        "prune_after": {"model": _output(found, "prune_after", "model", {"weights": "w"})},
        "export": {"onnx": OutputRecord(kind="onnx", path=None, digest=None)},
        "evaluate": {"scores": _output(found, "evaluate", "scores", {"scores.jsonl": scores + "\n"})},
    }
    for step, made in outputs.items():
        write_record(folder / "steps" / step, StepRecord(step=step, status="done", outputs=made))
    return found


def test_the_gate_decides_again_under_the_runs_settings_or_others_and_writes_nothing(
    place: Workspace,
) -> None:
    files = {path: path.stat().st_mtime_ns for path in place.root.rglob("*")}
    verdict = rerun_gate(place, "one", [])
    assert not verdict.passed
    assert (verdict.reasons[0].candidate, verdict.reasons[0].bar) == (0.5, 0.6)
    assert rerun_gate(place, "one", ["gate.rules.0.min=0.4"]).passed
    assert rerun_gate(place, "one", ["gate.mode=dry_run"]).passed
    assert {path: path.stat().st_mtime_ns for path in place.root.rglob("*")} == files
    with pytest.raises(InputError, match=r"gate\.rulez \(did you mean 'rules'\?\)"):
        rerun_gate(place, "one", ["gate.rulez=[]"])
    with pytest.raises(InputError, match="is not about the gate"):
        rerun_gate(place, "one", ["seed=3"])


def test_a_step_works_on_what_the_run_made_is_found_the_second_time_and_leaves_the_record(
    place: Workspace,
) -> None:
    first = rerun_step(place, "one", "gate")
    assert (first.status, first.cache_hit, first.metrics["passed"]) == ("done", False, 0.0)
    assert Path(str(first.outputs["verdict"].path), "verdict.json").is_file()
    assert rerun_step(place, "one", "gate").cache_hit
    assert not (place.step_folder("one", "gate") / "record.json").exists()


def test_what_a_step_lacks_is_said(place: Workspace) -> None:
    with pytest.raises(InputError, match="step mine of one: needs what train_unsupervised makes"):
        rerun_step(place, "one", "mine")
    with pytest.raises(InputError, match=r"there is no step 'gat'\. Known: ingest, "):
        rerun_step(place, "one", "gat")
    with pytest.raises(InputError, match="this run has no plan"):
        rerun_step(place, "two", "gate")


def test_damaged_scores_are_not_decided_on(place: Workspace) -> None:
    [scores] = place.root.glob(".embedline/store/evaluate/*/scores/scores.jsonl")
    scores.write_text(scores.read_text().replace("0.5", "0.9"))
    for act in (lambda: rerun_gate(place, "one", []), lambda: rerun_step(place, "one", "gate")):
        with pytest.raises(InputError, match=r"scores\.jsonl: the file has changed since it was written"):
            act()


def test_damaged_results_do_not_close_a_run(place: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """What is damaged by the end of a run is neither mirrored nor believed."""
    rerun_step(place, "one", "gate")
    [verdict] = place.root.glob(".embedline/store/gate/*/verdict/verdict.json")
    made = read_artifact(verdict.parent)
    output = OutputRecord(kind="verdict", path=str(made.path), digest=made.digest)
    folder = place.step_folder("one", "gate")
    write_record(folder, StepRecord(step="gate", status="done", outputs={"verdict": output}))
    closed = finish(place.root, "one")
    assert (closed.status, closed.stages["candidate"]["S"]) == ("refused", 0.5)
    verdict.write_text(verdict.read_text().replace("false", "true "))
    [scores] = place.root.glob(".embedline/store/evaluate/*/scores/scores.jsonl")
    scores.write_text(scores.read_text().replace("0.5", "0.9"))
    closed = finish(place.root, "one")
    assert (closed.status, closed.verdict, closed.stages) == ("failed", {}, {})
    assert "verdict.json: the file has changed since it was written" in caplog.text


def test_a_damaged_plan_is_no_plan(place: Workspace) -> None:
    (place.run_folder("one") / "plan.json").write_bytes(bytes(300))
    with pytest.raises(InputError, match="this run has no plan"):
        rerun_step(place, "one", "gate")

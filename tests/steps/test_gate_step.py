"""The gate step: scores and parity from artefacts to verdict.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.gate import GateConfig, Rule
from embedline.steps import gate
from embedline.steps.context import Context, StepConfig, StepResult


def artifact(folder: Path, kind: str, files: dict[str, str]) -> Artifact:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return write_manifest(folder, kind=kind, step="test", key="key")


def score(model: str, value: float) -> str:
    row = {
        "model": model,
        "set": "docs",
        "kind": "retrieval",
        "metric": "ndcg@10",
        "main": True,
        "value": value,
    }
    return json.dumps({**row, "dim": 384, "runtime": "torch", "head": "dense", "digest": f"{model}'s"})


@pytest.fixture
def judged(tmp_path: Path):
    def run(
        config: GateConfig, *, champion: Any = None, parity: bool | None = True
    ) -> tuple[dict[str, Any], StepResult]:
        rows = "\n".join([score("candidate", 0.5), score("champion", 0.6), score("base", 0.4)]) + "\n"
        inputs: dict[str, Artifact | None] = {
            "scores": artifact(tmp_path / "scores", "scores", {"scores.jsonl": rows}),
            "candidate": artifact(tmp_path / "model", "model", {"model.safetensors": "weights"}),
            "onnx": None,
        }
        if parity is not None:
            files = {"parity.json": json.dumps({"passed": parity})}
            inputs["onnx"] = artifact(tmp_path / "onnx", "onnx", files)
        if champion == "candidate":
            champion = {"version": 1, "digest": inputs["candidate"].digest}
        sliced = StepConfig(config={"gate": config.model_dump()}, pins={"champion": champion})
        place, draft = Workspace(tmp_path / "work"), tmp_path / "draft"
        draft.mkdir()
        result = gate.run(
            Context("gate", "key", sliced, inputs, place, "demo-1", Tracker(tmp_path / "spool"), draft)
        )
        return json.loads((draft / "verdict" / "verdict.json").read_text(encoding="utf-8")), result

    return run


def test_a_pass_is_written_with_its_reasons(judged) -> None:
    verdict, result = judged(GateConfig(rules=[Rule(set="docs", against="base", min_gain=0.05)]))
    assert verdict["passed"] is True
    assert result.metrics == {
        "passed": 1.0,
        "not_judged": 0.0,
        "would_pass": 1.0,
        "reasons_failed": 0.0,
        "warnings": 0.0,
    }
    assert "0.5000" in result.summary
    assert "0.4000" in result.summary


def test_a_refusal_is_a_result_with_the_reason(judged) -> None:
    verdict, result = judged(GateConfig(), champion={"version": 1, "digest": "champion's"})
    assert verdict["passed"] is False
    assert "**refused**" in result.summary
    assert [r["rule"] for r in verdict["reasons"] if not r["passed"]] == ["max_drop_vs_champion"]


def test_the_pinned_champion_s_digest_makes_it_already_champion(judged) -> None:
    verdict, _ = judged(GateConfig(), champion="candidate")
    assert (verdict["passed"], verdict["already_champion"]) == (True, True)


@pytest.mark.parametrize("parity", [False, None])
def test_a_failed_or_missing_parity_refuses(judged, parity: bool | None) -> None:
    verdict, _ = judged(GateConfig(), parity=parity)
    assert [r["rule"] for r in verdict["reasons"] if not r["passed"]] == ["require_parity"]


def test_a_dry_run_passes_and_reports_the_refusal(judged) -> None:
    verdict, result = judged(GateConfig(mode="dry_run", rules=[Rule(set="docs", min=0.9)]))
    assert (verdict["passed"], verdict["would_pass"]) == (True, False)
    assert "would have **refused**" in result.summary


def test_off_is_written_as_not_judged(judged) -> None:
    verdict, result = judged(GateConfig(mode="off"))
    assert (verdict["outcome"], verdict["passed"]) == ("not judged", False)
    assert result.metadata == {"verdict": {"outcome": "not judged"}}
    assert result.metrics["not_judged"] == 1.0
    assert "**not judged**" in result.summary

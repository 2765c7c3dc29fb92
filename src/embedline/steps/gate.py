"""gate: score rows and parity in, the verdict with its reasons out. A refusal is a result, not a failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embedline.artifacts.jsonl import read_jsonl
from embedline.artifacts.manifest import Artifact
from embedline.artifacts.markdown import cell
from embedline.artifacts.record import write_json
from embedline.config.gate import GateConfig
from embedline.errors import InputError
from embedline.gate.decision import Verdict, decide
from embedline.steps.context import Context, StepResult

VERDICT = "verdict.json"


def run(context: Context) -> StepResult:
    """Inputs `scores`, `onnx` (its parity) and `candidate` (its digest); output `verdict`."""
    config = context.step_config.section("gate", GateConfig)
    verdict = decide_on(context.inputs, config, context.step_config.pins.get("champion"))
    write_json(context.output("verdict") / VERDICT, verdict.as_dict())
    metrics = {
        "passed": float(verdict.passed),
        "would_pass": float(verdict.would_pass),
        "reasons_failed": float(sum(not reason.passed for reason in verdict.reasons)),
    }
    return StepResult(metrics=metrics, summary=_summary(verdict))


def decide_on(
    inputs: Mapping[str, Artifact | None], config: GateConfig, champion: Mapping[str, Any] | None
) -> Verdict:
    """The decision on the gate's inputs.

    Args:
        champion: its pin (`digest`); None when there is no champion.

    Raises:
        InputError: there are no scores.
    """
    found, candidate = inputs["scores"], inputs["candidate"]
    if found is None or candidate is None:
        raise InputError("there is nothing to decide on: no scores, or no candidate.", where="gate")
    scores = read_jsonl(found.path / "scores.jsonl")
    return decide(
        [{**row, "digest": candidate.digest} if row["model"] == "candidate" else row for row in scores],
        _read_parity(inputs["onnx"]),
        config,
        champion_present=champion is not None,
        base_present=any(row["model"] == "base" for row in scores),
        champion_digest=champion["digest"] if champion else None,
    )


def _read_parity(onnx: Artifact | None) -> dict[str, Any]:
    """What export measured; empty when nothing was exported."""
    path = onnx.path / "parity.json" if onnx else None
    if path is None or not path.is_file():
        return {}
    parity: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return parity


def _summary(verdict: Verdict) -> str:
    head = "The gate **passed**." if verdict.passed else "The gate **refused** the candidate."
    if verdict.mode == "dry_run" and not verdict.would_pass:
        head = "Dry run: the gate would have **refused** the candidate."
    lines = [
        f"- {'passed' if reason.passed else '**failed**'}: {cell(reason.text)}" for reason in verdict.reasons
    ]
    return "\n".join([head, "", *lines])

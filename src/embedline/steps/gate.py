"""gate: score rows and parity in, the verdict with its reasons out. A refusal is a result, not a failure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import Artifact
from embedline.artifacts.scores import read_scores
from embedline.config.gate import GateConfig
from embedline.errors import InputError
from embedline.evaluation.reasons import verdict_json, verdict_markdown
from embedline.gate.decision import Verdict, decide
from embedline.gate.outcome import Outcome
from embedline.steps.context import Context, StepResult

VERDICT = "verdict.json"


def run(context: Context) -> StepResult:
    """Decide whether the candidate may become the champion.

    Inputs `scores`, `onnx` (its parity) and `candidate` (its digest); output `verdict`.
    """
    config = context.step_config.section("gate", GateConfig)
    verdict = decide_on(context.inputs, config, context.step_config.pins.get("champion"))
    write_json(context.output("verdict") / VERDICT, verdict_json(verdict))
    metrics = {
        "passed": float(verdict.passed),
        "not_judged": float(verdict.outcome is Outcome.NOT_JUDGED),
        "would_pass": float(verdict.would_pass),
        "reasons_failed": float(sum(not reason.passed for reason in verdict.reasons)),
        "warnings": float(sum(reason.note == "warning" for reason in verdict.reasons)),
    }
    summary = f"{_headline(verdict)}\n\n{verdict_markdown(verdict_json(verdict))}"
    return StepResult(
        metrics=metrics, summary=summary, metadata={"verdict": {"outcome": verdict.outcome.value}}
    )


def decide_on(
    inputs: Mapping[str, Artifact | None], config: GateConfig, champion: Mapping[str, Any] | None
) -> Verdict:
    """Decide on the inputs of the gate.

    Args:
        champion: the champion's pin (`digest`); None when there is no champion.

    Raises:
        InputError: there are no scores, or no candidate.
    """
    scores, candidate = inputs["scores"], inputs["candidate"]
    if scores is None or candidate is None:
        raise InputError("there is nothing to decide on: no scores, or no candidate.", where="gate")
    rows = read_scores(scores.path)
    return decide(
        rows,
        _read_parity(inputs["onnx"]),
        config,
        champion_present=champion is not None,
        base_present=any(row.model == "base" for row in rows),
        candidate_digest=candidate.digest,
        champion_digest=champion["digest"] if champion else None,
    )


def _read_parity(onnx: Artifact | None) -> bool | None:
    """Return whether the exported models agree with torch; None when export did not measure it."""
    path = onnx.path / "parity.json" if onnx else None
    if path is None or not path.is_file():
        return None
    parity: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return parity["passed"] is True if "passed" in parity else None


def _headline(verdict: Verdict) -> str:
    if verdict.already_champion:
        return "The candidate is **the champion already**: its registered verdict stays."
    if verdict.outcome is Outcome.NOT_JUDGED:
        return "The candidate is **not judged**: no alias moves by itself."
    if verdict.outcome is Outcome.REFUSED:
        return "The gate **refused** the candidate."
    return (
        "The gate **passed**."
        if verdict.would_pass
        else "Dry run: the gate would have **refused** the candidate."
    )

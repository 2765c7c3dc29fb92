"""Tags and description of a registered version: verdict, scores and lineage, within MLflow's limits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedline.artifacts.run_folder import read_fingerprint
from embedline.artifacts.scores import read_scores
from embedline.config.limits import VERSION_TAG
from embedline.evaluation.compare import CANDIDATE, markdown
from embedline.evaluation.reasons import finding, verdict_markdown, warnings
from embedline.evaluation.summary import main_scores
from embedline.gate.outcome import Outcome, outcome_of
from embedline.markdown import cell
from embedline.registry.versions import (
    INDEX_TAG,
    JUDGED_AT_TAG,
    REASONS_TAG,
    SCORES_TAG,
    VERDICT_TAG,
    judged_against_tag,
)
from embedline.steps.context import Context

_MAX_REASONS = 4000  # characters; the complete verdict is in the run's artefacts


def candidate_tags(context: Context, verdict: dict[str, Any], alias: str) -> dict[str, str]:
    """Return the tags of the candidate's version.

    Args:
        alias: of the champion that the gate compared the candidate with.
        verdict: content of verdict.json.
    """
    compared_with = (context.step_config.pins.get("champion") or {}).get("version")
    outcome = outcome_of(verdict)
    scores = context.inputs["scores"]
    fingerprint = read_fingerprint(context.workspace.run_folder(context.run))
    if len(fingerprint.get("manifest", "")) > VERSION_TAG:
        fingerprint.pop("manifest")  # the parts' checksums remain, which decide whether a run is needed
    judged = {
        judged_against_tag(alias): str(compared_with or "none"),
        JUDGED_AT_TAG: str(int(time.time() * 1000)),
    }
    return {
        "embedline.run_id": context.run,
        **{f"embedline.{name}": value for name, value in fingerprint.items()},
        INDEX_TAG: _index_version(context.artifact("candidate").path),
        SCORES_TAG: _scores(main_scores(scores.path if scores else None)),
        **({} if outcome is Outcome.NOT_JUDGED else judged),
        VERDICT_TAG: outcome.value,
        "verdict.mode": verdict["mode"],
        "verdict.would_pass": str(bool(verdict.get("would_pass", verdict["passed"]))).lower(),
        "verdict.warnings": _texts(warnings(verdict)),
        REASONS_TAG: _reasons(verdict, outcome),
    }


def version_description(context: Context, verdict: Mapping[str, Any]) -> str:
    """Return the card of the candidate's version in Markdown: verdict, reasons and warnings, scores.

    Args:
        verdict: content of verdict.json.
    """
    scores = context.inputs["scores"]
    rows = [row for row in read_scores(scores.path) if row.model == CANDIDATE] if scores else []
    mode = "" if verdict["mode"] == "enforce" else f" (gate.mode: {verdict['mode']})"
    head = f"Verdict of run {cell(context.run)}: **{outcome_of(verdict).value}**{mode}"
    return "\n\n".join([head, verdict_markdown(verdict), markdown(rows)])


def _scores(scores: dict[str, float]) -> str:
    """Return scores as JSON; of more sets than a tag can hold, the first."""
    while len(text := json.dumps(scores, ensure_ascii=False)) > VERSION_TAG:
        scores = dict(list(scores.items())[: len(scores) * VERSION_TAG // len(text)])
    return text


def _reasons(verdict: Mapping[str, Any], outcome: Outcome) -> str:
    """Return the sentences of the broken rules; of a candidate that was not judged, why it was not."""
    broken = [reason for reason in verdict["reasons"] if finding(reason) == "broken"]
    if outcome is Outcome.NOT_JUDGED and not broken:
        broken = verdict["reasons"][-1:]
    return _texts(broken) or "all rules hold"


def _texts(reasons: Iterable[Mapping[str, Any]]) -> str:
    return " ".join(reason["text"] for reason in reasons)[:_MAX_REASONS]


def _index_version(model: Path) -> str:
    card = model / "embedline.json"
    if not card.is_file():
        return ""
    return str(json.loads(card.read_text(encoding="utf-8")).get("index_version", ""))

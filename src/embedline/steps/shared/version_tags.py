"""Tags of a registered version: verdict, scores and lineage, within MLflow's limits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from embedline.artifacts.run_folder import read_fingerprint
from embedline.evaluation.summary import main_scores
from embedline.registry.versions import (
    INDEX_TAG,
    JUDGED_AGAINST_TAG,
    JUDGED_AT_TAG,
    PASSED,
    REASONS_TAG,
    SCORES_TAG,
    VERDICT_TAG,
)
from embedline.steps.context import Context

REFUSED = "refused"
_MAX_REASONS = 4000  # characters; the complete verdict is in the run's artefacts


def candidate_tags(context: Context, verdict: dict[str, Any]) -> dict[str, str]:
    """Return the tags of the candidate's version.

    Args:
        verdict: content of verdict.json.
    """
    compared_with = (context.step_config.pins.get("champion") or {}).get("version")
    refused = [reason["text"] for reason in verdict["reasons"] if not reason["passed"]]
    scores = context.inputs["scores"]
    fingerprint = read_fingerprint(context.workspace.run_folder(context.run))
    return {
        "embedline.run_id": context.run,
        **{f"embedline.{name}": value for name, value in fingerprint.items()},
        INDEX_TAG: _index_version(context.artifact("candidate").path),
        SCORES_TAG: json.dumps(main_scores(scores.path if scores else None), ensure_ascii=False),
        JUDGED_AGAINST_TAG: str(compared_with or "none"),
        JUDGED_AT_TAG: str(int(time.time() * 1000)),
        VERDICT_TAG: PASSED if verdict["passed"] else REFUSED,
        "verdict.mode": verdict["mode"],
        "verdict.would_pass": str(bool(verdict.get("would_pass", verdict["passed"]))).lower(),
        REASONS_TAG: (" ".join(refused) or "all rules hold")[:_MAX_REASONS],
    }


def _index_version(model: Path) -> str:
    card = model / "embedline.json"
    if not card.is_file():
        return ""
    return str(json.loads(card.read_text(encoding="utf-8")).get("index_version", ""))

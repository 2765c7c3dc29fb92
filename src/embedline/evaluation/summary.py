"""What a run's score rows come to: the candidate's main scores, and what each stage gained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from embedline.artifacts.jsonl import read_jsonl
from embedline.gate.policy import DENSE, Side

# In the order of the line; bm25 and untrained are what the stages are measured against.
STAGES = (
    "bm25",
    "untrained",
    "pretrain",
    "train_unsupervised",
    "train_supervised",
    "candidate",
    "base",
    "champion",
)


def stage_gains(folder: Path | None) -> dict[str, dict[str, float]]:
    """nDCG@10 at full width by stage and held-out retrieval set; `mean` is over the sets all stages have."""
    if folder is None or not (folder / "scores.jsonl").is_file():
        return {}
    rows = read_jsonl(folder / "scores.jsonl")
    rows = [r for r in rows if r["kind"] == "retrieval" and r["main"] and r["runtime"] == "torch"]
    rows = [r for r in rows if (r.get("head") or "dense") == "dense"]
    gains: dict[str, dict[str, float]] = {}
    for model in STAGES:
        own = [row for row in rows if row["model"] == model]
        widest: dict[str, dict[str, Any]] = {}
        for row in own:
            kept = widest.get(row["set"])
            if kept is None or (row["dim"] or 0) > (kept["dim"] or 0):
                widest[row["set"]] = row
        if widest:
            gains[model] = {name: row["value"] for name, row in widest.items()}
    shared = set.intersection(*(set(sets) for sets in gains.values())) if gains else set()
    for sets in gains.values():
        if shared:
            sets["mean"] = sum(sets[name] for name in shared) / len(shared)
    return gains


def main_scores(folder: Path | None) -> dict[str, float]:
    """The candidate's main score of every evaluation set, at full width; other heads than dense by name.

    Args:
        folder: what evaluate left; None when it left nothing.
    """
    if folder is None or not (folder / "scores.jsonl").is_file():
        return {}
    return {
        score.set if score.head == DENSE else f"{score.set} ({score.head})": round(score.value, 6)
        for score in Side("candidate", read_jsonl(folder / "scores.jsonl")).scores
        if score.main and math.isfinite(score.value)
    }

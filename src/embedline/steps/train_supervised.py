"""Stage three: contrastive training on triplets with mined negatives, instructions and Matryoshka."""

from __future__ import annotations

from embedline.steps.base import Context, StepResult
from embedline.steps.contrastive import train_stage


def run(context: Context) -> StepResult:
    return train_stage(context, "supervised", "triplets")

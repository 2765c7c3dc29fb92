"""Stage three: contrastive training on triplets with mined negatives, instructions and Matryoshka."""

from __future__ import annotations

from embedline.steps.context import Context, StepResult
from embedline.steps.shared.contrastive import train_stage


def run(context: Context) -> StepResult:
    """Train on the mined triplets, and write the output `model`."""
    return train_stage(context, section="supervised", records="triplets")

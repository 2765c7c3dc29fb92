"""Stage two: contrastive training on weak pairs, single-source batches, GradCache."""

from __future__ import annotations

from embedline.steps.context import Context, StepResult
from embedline.steps.shared.contrastive import train_stage


def run(context: Context) -> StepResult:
    """Train on the cleaned pairs, and write the output `model`."""
    return train_stage(context, "unsupervised", "dataset")

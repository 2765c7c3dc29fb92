"""Stage two: contrastive training on weak (unlabelled) pairs; all rows of a batch come from one source."""

from __future__ import annotations

from embedline.steps.context import Context, StepResult
from embedline.steps.shared.contrastive import train_stage


def run(context: Context) -> StepResult:
    """Train on the cleaned pairs, and write the output `model`."""
    return train_stage(context, section="unsupervised", records="dataset")

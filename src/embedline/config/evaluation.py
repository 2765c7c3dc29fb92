"""Section `evaluate`: what is scored in addition to the run's held-out sets."""

from __future__ import annotations

from pydantic import Field

from embedline.config.base import Section


class EvaluateConfig(Section):
    """Scores in addition to those of the candidate on the sets of data.evaluation and data.hold_out."""

    mteb_tasks: list[str] = Field([], description="names of mteb tasks, run by mteb's own classes")
    mteb_root: str = Field(
        "", description="folder with copies of hub datasets (ORG/NAME), for machines without a hub"
    )
    stage_sets: list[str] = Field(
        [], description="sets that the model of every training stage is scored on; all sets when empty"
    )
    score_base: bool = Field(True, description="score model.base beside the candidate")
    score_champion: bool = Field(True, description="score the champion beside the candidate")
    onnx_sets: list[str] = Field(
        [], description="sets that the ONNX files are scored on, too; none when empty"
    )
    bootstrap: int = Field(
        1000, ge=0, description="bootstrap resamples for a confidence interval; 0: no intervals"
    )
    batch_tokens: int = Field(8192, ge=64, description="tokens of a batch while encoding, padding included")
    needle_depths: list[int] = Field(
        [], description="tokens before the fact to be found, in generated long documents; none when empty"
    )
    needle_documents: int = Field(
        32, ge=2, le=500, description="generated documents at each depth; a random guess finds 1 of them"
    )

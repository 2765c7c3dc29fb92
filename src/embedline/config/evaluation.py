"""Section `evaluate`: what is scored beside the sets in data.evaluation."""

from __future__ import annotations

from pydantic import Field

from embedline.config.base import Section


class EvaluateConfig(Section):
    """What is scored, beside the sets in data.evaluation."""

    mteb_tasks: list[str] = Field([], description="mteb task names, run through mteb's own classes")
    mteb_root: str = Field(
        "", description="folder with hub-layout copies (ORG/NAME) for machines without a hub"
    )
    stage_sets: list[str] = Field([], description="sets scored after every training stage; all when empty")
    score_base: bool = Field(True, description="score model.base beside the candidate")
    score_champion: bool = Field(True, description="score the champion beside the candidate")
    onnx_sets: list[str] = Field([], description="sets also scored through ONNX; none when empty")
    bootstrap: int = Field(1000, ge=0, description="resamples of a confidence interval")
    batch_tokens: int = Field(8192, ge=64, description="tokens a batch while encoding, padding included")
    needle_depths: list[int] = Field(
        [], description="tokens before the fact that a question asks for, in made-up long documents"
    )
    needle_documents: int = Field(32, ge=2, le=500, description="documents a depth; chance is 1 of them")

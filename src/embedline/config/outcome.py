"""Sections about what comes out: export, evaluation, gate, promotion."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.names import alias_problem, model_problem
from embedline.config.renamed import renamed_gate, renamed_promote
from embedline.config.secrets import SecretRef


class ExportConfig(Section):
    """ONNX fp32 and int8, with a measured parity."""

    # Opset 23 has an operator for rotary positions, which onnxruntime 1.31 runs only one text at a time.
    opset: int = Field(18, ge=17, le=22, description="of the ONNX graph")
    int8: bool = Field(True, description="also write model_int8.onnx, quantised dynamically")
    parity_texts: int = Field(64, ge=4, description="texts the exported models are compared on")
    min_cosine_fp32: float = Field(0.9999, gt=0, le=1, description="worst cosine to torch that passes")
    min_cosine_int8: float = Field(0.95, gt=0, le=1, description="the same of int8")
    min_token_cosine_fp32: float = Field(0.9999, gt=0, le=1, description="of any token's vector")
    # Measured: 0.9998 on bge-m3-tiny as trained, 0.953 on MiniLM-L6 under new heads (dense there: 0.949).
    min_token_cosine_int8: float = Field(0.9, gt=0, le=1, description="the same of int8")
    max_lexical_difference_fp32: float = Field(
        0.001, ge=0, description="of any term's weight, as a share of the largest weight"
    )
    # Measured: 0.010 on bge-m3-tiny, 0.17 on MiniLM-L6 under a new head of random weights.
    max_lexical_difference_int8: float = Field(0.2, ge=0, description="the same of int8")


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


class Rule(Section):
    """One bar: a score at least `min`, or not more than `max_drop` below the base or the champion."""

    set: str = Field(description="evaluation set or mteb task; * is the mean of all retrieval sets")
    metric: str = Field("main", description="metric of that set; main is its own main score")
    head: Literal["dense", "lexical", "multi_vector", "hybrid"] = Field(
        "dense", description="of the candidate and of what it is compared with"
    )
    min: float | None = Field(None, description="bar (0..1) that the score must reach")
    against: Literal["base", "champion", "bm25", "untrained"] | None = Field(
        None, description="what the candidate is compared with by max_drop and min_gain"
    )
    max_drop: float | None = Field(None, description="points (0..1) it may lose against the other")
    min_gain: float | None = Field(None, description="points (0..1) it must win against the other")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Rule:
        if self.min is None and self.max_drop is None and self.min_gain is None:
            raise ValueError("a rule needs one of min, max_drop, min_gain")
        if (self.max_drop is not None or self.min_gain is not None) and self.against is None:
            raise ValueError("max_drop and min_gain need `against`")
        return self


class GateConfig(Section):
    """The pure decision. dry_run decides and says so, but never stops a promotion."""

    mode: Literal["off", "dry_run", "enforce"] = Field(
        "enforce", description="enforce; dry_run decides and says so, but stops nothing; off"
    )
    rules: list[Rule] = Field([], description="bars a candidate must clear, all of them")
    max_drop_vs_champion: float | None = Field(0.01, description="mean of retrieval sets; none: not compared")
    require_parity: bool = Field(True, description="refuse a model whose ONNX does not agree with torch")

    @model_validator(mode="before")
    @classmethod
    def _old_spellings(cls, values: Any) -> Any:
        return renamed_gate(values)


class PromoteConfig(Section):
    """Where a candidate is registered and whether the alias moves."""

    model: str = Field("", description="registered model name; the run's name when empty")
    alias: str = Field("champion", description="of the registered model, that deployments follow")
    policy: Literal["auto", "manual"] = Field(
        "auto", description="manual: the run registers and names a challenger, a person promotes"
    )
    first_champion: str | None = Field(
        None, description="outside model registered as version 1 and champion when there is none yet"
    )

    @model_validator(mode="before")
    @classmethod
    def _old_spellings(cls, values: Any) -> Any:
        return renamed_promote(values)

    @model_validator(mode="after")
    def _names_can_be_registered(self) -> PromoteConfig:
        """Not hours later, when the model is there."""
        if problem := alias_problem(self.alias):
            raise ValueError(f"alias: {self.alias!r} {problem}")
        if self.model and (problem := model_problem(self.model)):
            raise ValueError(f"model: {self.model!r} {problem}")
        return self


class TrackingConfig(Section):
    """MLflow."""

    uri: str = Field("", description="tracking server; MLFLOW_TRACKING_URI, else sqlite in the work folder")
    experiment: str = Field("embedline", description="experiment name")
    token: SecretRef = Field(
        "",
        description="bearer token, as env:NAME or secret:NAME/KEY; else what MLflow reads from "
        "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    )

"""Section `gate`: the rules that a candidate must meet."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.renamed import renamed_gate


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

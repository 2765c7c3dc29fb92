"""Section `gate`: the rules that a candidate must pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.renamed import renamed_gate


class Rule(Section):
    """One rule: a score of at least `min`, or a bounded difference to the score of another model."""

    set: str | Annotated[list[str], Field(min_length=2)] = Field(
        description="evaluation set or mteb task; * is the mean over all retrieval sets, and a list the mean "
        "over its sets, each of which must have been scored"
    )
    metric: str = Field("main", description="metric of the set; main is the set's main metric")
    head: Literal["dense", "lexical", "multi_vector", "hybrid"] = Field(
        "dense",
        description="head of the model, the same for the candidate and for what it is compared with; BM25 "
        "has one score, which any head is compared with",
    )
    min: float | None = Field(None, description="lowest score (0..1) that passes")
    against: Literal["base", "champion", "bm25", "untrained"] | None = Field(
        None, description="model that max_drop and min_gain compare the candidate with"
    )
    max_drop: float | None = Field(
        None, description="largest drop (0..1) against the other model that passes"
    )
    min_gain: float | None = Field(None, description="smallest gain (0..1) over the other model that passes")

    @model_validator(mode="after")
    def _has_a_bar(self) -> Rule:
        if self.min is None and self.max_drop is None and self.min_gain is None:
            raise ValueError("a rule needs one of min, max_drop, min_gain")
        if (self.max_drop is not None or self.min_gain is not None) and self.against is None:
            raise ValueError("max_drop and min_gain need `against`")
        return self


DefaultRule = Literal["below_base", "below_untrained", "collapsed", "below_bm25"]


class GateConfig(Section):
    """The decision on a candidate."""

    mode: Literal["off", "dry_run", "enforce"] = Field(
        "enforce",
        description="enforce: a refusal stops the promotion; dry_run: a refusal is only written down; off: "
        "nothing is checked, and the candidate is registered as not judged",
    )
    rules: list[Rule] = Field(
        [], description="rules, all of which a candidate must pass, in addition to the default rules"
    )
    without: list[DefaultRule] = Field(
        [],
        description="default rules to switch off. below_base and below_untrained refuse a candidate whose "
        "mean over the retrieval sets (over all sets when there is none) is lower than that of model.base or "
        "of the same architecture with random weights; collapsed refuses one whose vectors of unrelated "
        "texts are nearly alike (mean cosine above 0.95) or use few dimensions (effective rank below 5 % of "
        "the largest possible); below_bm25 warns of a candidate whose mean is lower than BM25's",
    )
    max_drop_vs_champion: float | None = Field(
        0.01,
        description="largest drop (0..1) of the mean over retrieval sets against the champion; none: any",
    )
    require_parity: bool = Field(
        True, description="refuse a candidate whose exported models do not agree with torch"
    )

    @model_validator(mode="before")
    @classmethod
    def _old_spellings(cls, values: Any) -> Any:
        return renamed_gate(values)

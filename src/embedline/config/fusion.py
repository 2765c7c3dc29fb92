"""Section `fusion`: how a search combines the model's heads and BM25."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from embedline.config.base import Section

Leg = Literal["dense", "lexical", "multi_vector", "bm25"]


class FusionConfig(Section):
    """Hybrid search: the legs that are fused, and the queries on which their weights are fitted."""

    method: Literal["convex", "rrf"] = Field(
        "convex",
        description="convex: weighted mean of normalised scores, the weights a query's own and fitted on "
        "records set aside; rrf: reciprocal rank fusion",
    )
    legs: list[Leg] = Field(
        ["dense", "lexical", "multi_vector", "bm25"],
        min_length=2,
        description="what is fused; heads that the model lacks are left out",
    )
    queries: int = Field(
        1000,
        ge=0,
        description="records that clean sets aside at most, and no more than a tenth of a source's, for the "
        "fit of the weights; 0: default weights",
    )
    documents: int = Field(
        4000, ge=100, description="documents that the fit searches, the records' own among them"
    )

    @field_validator("legs")
    @classmethod
    def _different(cls, legs: list[Leg]) -> list[Leg]:
        if len(set(legs)) < len(legs):
            raise ValueError("each leg once")
        return legs

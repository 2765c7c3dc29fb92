"""Sections `promote` and `tracking`: the model registry and the tracking server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.names import alias_problem, model_problem
from embedline.config.renamed import renamed_promote
from embedline.config.secrets import SecretRef


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

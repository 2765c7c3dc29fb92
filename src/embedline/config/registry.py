"""Sections `promote` and `tracking`: the model registry and the tracking server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.names import alias_problem, experiment_problem, model_problem
from embedline.config.renamed import renamed_promote
from embedline.config.secrets import SecretRef


class PromoteConfig(Section):
    """Registration of the candidate and the move of the alias."""

    model: str = Field("", description="registered model name; the run's name when empty")
    alias: str = Field("champion", description="alias of the registered model that deployments follow")
    policy: Literal["auto", "manual"] = Field(
        "auto",
        description="auto: a candidate that passed the gate becomes champion; manual: it becomes challenger "
        "and is promoted with `embedline promote`",
    )
    first_champion: str | None = Field(
        None,
        description="existing model (folder or hub name) registered as version 1 and champion when there is "
        "no champion yet",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_spellings(cls, values: Any) -> Any:
        return renamed_promote(values)

    @model_validator(mode="after")
    def _names_can_be_registered(self) -> PromoteConfig:
        """Refuse names before the run: MLflow would refuse them hours later."""
        if problem := alias_problem(self.alias):
            raise ValueError(f"alias: {self.alias!r} {problem}")
        if self.model and (problem := model_problem(self.model)):
            raise ValueError(f"model: {self.model!r} {problem}")
        return self


class TrackingConfig(Section):
    """MLflow tracking server and experiment."""

    uri: str = Field(
        "",
        description="address of the tracking server; when empty MLFLOW_TRACKING_URI, else sqlite in the work "
        "folder",
    )
    experiment: str = Field("embedline", description="name of the MLflow experiment")
    token: SecretRef = Field(
        "",
        description="bearer token as env:NAME or secret:NAME/KEY; when empty MLflow reads "
        "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    )

    @model_validator(mode="after")
    def _experiment_has_a_name(self) -> TrackingConfig:
        if problem := experiment_problem(self.experiment):
            raise ValueError(f"experiment: {self.experiment[:50]!r} {problem}")
        return self

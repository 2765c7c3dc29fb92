"""The record of a run: run.json, written when the run begins and completed when it ends."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from embedline.artifacts.record import StepRecord


class RunError(BaseModel):
    """The reason why a run failed or was killed; `step` is None when no step failed."""

    model_config = ConfigDict(frozen=True)
    step: str | None
    message: str


class RunRecord(BaseModel):
    """The content of run.json; all defaults for a run without a readable record.

    Args:
        name: of the registered model.
        status: succeeded (the gate passed, or the model is champion already), refused, not judged, conflict
            (the gate passed, and another move of the alias came first), …
        exit_code: of `embedline run`.
        started, ended: seconds since the epoch.
        stages: nDCG@10 by stage and evaluation set, with their `mean`.
        verdict, model: the content of verdict.json and promotion.json; empty without one.
        tracking: uri and experiment.
        config: the resolved config.
        pid, born, boot, pid_namespace, host: the process that a running run depends on (`runs.process`).
    """

    model_config = ConfigDict(frozen=True)
    run: str = ""
    preset: str = ""
    name: str = ""
    status: Literal["", "running", "succeeded", "refused", "not judged", "conflict", "failed", "killed"] = ""
    exit_code: int | None = None
    error: RunError | None = None
    started: float = 0.0
    ended: float | None = None
    seconds: float | None = None
    steps: list[StepRecord] = []
    stages: dict[str, dict[str, float]] = {}
    verdict: dict[str, Any] = {}
    model: dict[str, Any] = {}
    tracking: dict[str, str] = {}
    config: dict[str, Any] = {}
    pid: int = 0
    born: float | None = None
    boot: str = ""
    pid_namespace: str = ""
    host: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the values that were set, for run.json and for --json."""
        return {name: value for name, value in self.model_dump().items() if name in self.model_fields_set}

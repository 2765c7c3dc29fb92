"""Mirror of a run in MLflow: one parent run and one nested run for each step, filled from local spools."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from embedline.artifacts.tracker import SPOOL
from embedline.redaction import without_secrets
from embedline.registry.server import (
    client,
    default_uri,
    error_code,
    experiment_id,
    host_lock,
    prepare,
    quoted,
    tracking_errors,
)
from embedline.registry.spool import MAX_TAG_VALUE, Batch, MetricValue, Sent, batches, clean_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["RUN_TAG", "STEP_TAG", "RunMirror", "default_uri", "prepare"]

RUN_TAG = "embedline.run_id"
STEP_TAG = "embedline.step"
_PARENT_TAG = "mlflow.parentRunId"
_log = logging.getLogger(__name__)


class RunMirror:
    """Runs in one MLflow experiment.

    Runs are found by tag, so any process finds them again and a retried step continues its own nested run.
    Every method raises TrackingError when the server does not answer; nothing is lost, because the next
    `replay` sends what is missing.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: str | None = None) -> None:
        self.uri, self.experiment, self.artifact_root = uri, experiment, artifact_root
        self._opened: tuple[MlflowClient, str] | None = None

    def parent(
        self, run_id: str, tags: Mapping[str, str] | None = None, metrics: Mapping[str, float] | None = None
    ) -> str:
        """Find or create the parent run of `run_id`; return its MLflow id.

        Args:
            tags: tags to set on it.
            metrics: metrics to log on it, by which runs are compared; an unchanged value is not logged again.
        """
        with tracking_errors(self.uri):
            parent = self._find_or_create(run_id, None)
            for key, value in (tags or {}).items():
                text = without_secrets(str(value))[:MAX_TAG_VALUE]
                self._client.set_tag(parent.info.run_id, clean_key(key), text)
            for key, number in (metrics or {}).items():
                if parent.data.metrics.get(clean_key(key)) != number:
                    self._client.log_metric(parent.info.run_id, clean_key(key), number)
            return str(parent.info.run_id)

    def reopen(self, run_id: str) -> None:
        """Set an ended run that was restarted to RUNNING; remove the tags of its earlier end."""
        with tracking_errors(self.uri):
            parent = self._find_or_create(run_id, None)
            for tag in {"error", "conflict", "exit_code"} & set(parent.data.tags):
                self._client.delete_tag(parent.info.run_id, tag)
            if parent.info.status != "RUNNING":
                self._client.update_run(parent.info.run_id, status="RUNNING")

    def replay(self, run_folder: Path, run_id: str) -> int:
        """Send the unsent part of the spools below `<run_folder>/steps/`.

        Returns:
            The number of bytes of spool that were sent.
        """
        with FileLock(run_folder / ".replay.lock"), tracking_errors(self.uri):
            return sum(
                self._replay_step(spool.parent, run_id)
                for spool in sorted(run_folder.glob(f"steps/*/{SPOOL}"))
            )

    def end_step(self, run_id: str, step: str, status: str) -> None:
        """End the nested run of a step (FINISHED, FAILED or KILLED); a retry may end it again."""
        with tracking_errors(self.uri):
            self._client.set_terminated(self._find_or_create(run_id, step).info.run_id, status)

    def close(self, run_id: str, status: str) -> None:
        """End the parent run, and every nested run that is still running."""
        with tracking_errors(self.uri):
            parent = self._find_or_create(run_id, None).info.run_id
            for nested in self._search(f"tags.`{_PARENT_TAG}` = {quoted(parent)}", 1000):
                if nested.info.status == "RUNNING":
                    self._client.set_terminated(nested.info.run_id, status)
            self._client.set_terminated(parent, status)

    @property
    def _client(self) -> MlflowClient:
        return self._open()[0]

    def _open(self) -> tuple[MlflowClient, str]:
        if self._opened is None:
            opened = client(self.uri)
            self._opened = (opened, experiment_id(opened, self.uri, self.experiment, self.artifact_root))
        return self._opened

    def _search(self, condition: str, limit: int) -> list[Run]:
        opened, experiment = self._open()
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        return list(opened.search_runs([experiment], condition, max_results=limit, order_by=order))

    def _find_or_create(self, run_id: str, step: str | None) -> Run:
        """Return the parent run, or the nested run of a step; create it under a lock when it is new."""
        if step is None:
            tags, name = {RUN_TAG: run_id}, run_id
        else:
            parent = self._find_or_create(run_id, None).info.run_id
            tags, name = {STEP_TAG: step, _PARENT_TAG: parent}, step
        condition = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in tags.items())
        runs = self._search(condition, 1)
        if runs:
            return runs[0]
        opened, experiment = self._open()
        with host_lock(self.uri, self.experiment, *tags.values()):
            if not (runs := self._search(condition, 1)):
                opened.create_run(experiment, tags=tags, run_name=name)
                runs = self._search(condition, 1)  # if two hosts created one each, both use the first
        return runs[0]

    def _replay_step(self, folder: Path, run_id: str) -> int:
        spool = folder / SPOOL
        sent = Sent.read(folder)
        if sent.run and not sent.sending and sent.offset == spool.stat().st_size and self._exists(sent.run):
            return 0
        nested = self._find_or_create(run_id, folder.name).info.run_id
        known = sent.run == nested and sent.offset <= spool.stat().st_size
        start = sent.offset if known else 0
        # After a crash while sending, or with no record of what was sent, the server's values are read first.
        doubtful = sent.sending or not known
        history = _History(self._client, nested) if doubtful else None
        offset = start
        for batch in batches(spool, start):
            Sent(nested, offset, sending=True).write(folder)
            self._send(nested, batch, history)
            offset = batch.end
            Sent(nested, offset).write(folder)
        return offset - start

    def _exists(self, mlflow_run: str) -> bool:
        """Return whether the run that a spool was sent to is in this store: the address may have changed."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(mlflow_run).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _send(self, run: str, batch: Batch, history: _History | None) -> None:
        """Send a batch, parameters separately: one conflicting parameter rejects the whole request."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(key, value) for key, value in batch.params.items()]
        tags = [RunTag(key, value) for key, value in batch.tags.items()]
        values = (
            batch.metrics if history is None else [each for each in batch.metrics if history.is_new(each)]
        )
        metrics = [Metric(each.key, each.value, each.timestamp, each.step) for each in values]
        if params and not self._accepted(run, params=params):
            for param in params:
                if not self._accepted(run, params=[param]):
                    conflict = RunTag(f"param_conflict.{param.key}"[:250], param.value)
                    self._client.log_batch(run, tags=[conflict])
        if (metrics or tags) and not self._accepted(run, metrics=metrics, tags=tags):
            for metric in metrics:
                if not self._accepted(run, metrics=[metric]):
                    _log.warning("mlflow refuses the metric %s; it stays in the spool", metric.key)
            for tag in tags:
                if not self._accepted(run, tags=[tag]):
                    _log.warning("mlflow refuses the tag %s; it stays in the spool", tag.key)

    def _accepted(self, run: str, **entities: Any) -> bool:
        """Send entities of a run; return False when the server refuses them (no answer raises)."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(run, **entities)
        except MlflowException as error:
            if error_code(error) not in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                raise
            return False
        return True


class _History:
    """Metrics that a run has on the server, read once for each key."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run
        self._steps: dict[str, set[int]] = {}

    def is_new(self, metric: MetricValue) -> bool:
        """Return whether the server has no value at the metric's step; a spool has at most one."""
        key, step = metric.key, metric.step
        if key not in self._steps:
            self._steps[key] = {m.step for m in self._client.get_metric_history(self._run, key)}
        new = step not in self._steps[key]
        self._steps[key].add(step)
        return new

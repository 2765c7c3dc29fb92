"""Mirrors a run to MLflow: one parent run, one nested run a step, filled from the steps' local spools."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from embedline.artifacts.tracker import SPOOL
from embedline.registry.server import (
    client,
    default_uri,
    error_code,
    experiment_id,
    host_lock,
    prepare,
    quoted,
    reaching,
)
from embedline.registry.spool import MAX_TAG_VALUE, Batch, Sent, batches, clean_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["RUN_TAG", "STEP_TAG", "RunMirror", "default_uri", "prepare"]

RUN_TAG = "embedline.run_id"
STEP_TAG = "embedline.step"
_PARENT_TAG = "mlflow.parentRunId"
_log = logging.getLogger(__name__)


class RunMirror:
    """The MLflow side of runs in one experiment.

    Runs are found by tag, so any process finds them again and a retried step meets its own nested run.
    Every method raises TrackingError when the server does not answer; nothing is lost by that, the
    next `replay` sends what is missing.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: str | None = None) -> None:
        self.uri, self.experiment, self.artifact_root = uri, experiment, artifact_root
        self._opened: tuple[MlflowClient, str] | None = None

    def parent(
        self, run_id: str, tags: Mapping[str, str] | None = None, metrics: Mapping[str, float] | None = None
    ) -> str:
        """The MLflow id of the parent run of `run_id`, found or created.

        `tags` are set on it. So are `metrics`, by which runs are compared; a value that is there is not
        logged again.
        """
        with reaching(self.uri):
            found = self._find_or_create(run_id, None)
            for key, value in (tags or {}).items():
                self._client.set_tag(found.info.run_id, clean_key(key), str(value)[:MAX_TAG_VALUE])
            for key, number in (metrics or {}).items():
                if found.data.metrics.get(clean_key(key)) != number:
                    self._client.log_metric(found.info.run_id, clean_key(key), number)
            return str(found.info.run_id)

    def reopen(self, run_id: str) -> None:
        """A run that had ended is going on (restarted after a failure): how it ended then is no news."""
        with reaching(self.uri):
            found = self._find_or_create(run_id, None)
            for tag in {"error", "exit_code"} & set(found.data.tags):
                self._client.delete_tag(found.info.run_id, tag)
            if found.info.status != "RUNNING":
                self._client.update_run(found.info.run_id, status="RUNNING")

    def replay(self, run_folder: Path, run_id: str) -> int:
        """Send what the spools below `<run_folder>/steps/` hold beyond what has been sent.

        Returns:
            The number of bytes of spool that went out.
        """
        with FileLock(run_folder / ".replay.lock"), reaching(self.uri):
            return sum(
                self._replay_step(spool.parent, run_id)
                for spool in sorted(run_folder.glob(f"steps/*/{SPOOL}"))
            )

    def end_step(self, run_id: str, step: str, status: str) -> None:
        """Ends the nested run of a step (FINISHED, FAILED or KILLED); a retry may end it again."""
        with reaching(self.uri):
            self._client.set_terminated(self._find_or_create(run_id, step).info.run_id, status)

    def close(self, run_id: str, status: str) -> None:
        """Ends the parent run, and every nested run that nobody has ended."""
        with reaching(self.uri):
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
        """The parent run, or the nested run of a step, made under a lock when it is not there."""
        if step is None:
            tags, name = {RUN_TAG: run_id}, run_id
        else:
            parent = self._find_or_create(run_id, None).info.run_id
            tags, name = {STEP_TAG: step, _PARENT_TAG: parent}, step
        condition = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in tags.items())
        found = self._search(condition, 1)
        if found:
            return found[0]
        opened, experiment = self._open()
        with host_lock(self.uri, self.experiment, *tags.values()):
            if not (found := self._search(condition, 1)):
                opened.create_run(experiment, tags=tags, run_name=name)
                found = self._search(condition, 1)  # of two hosts that created one each, both take the first
        return found[0]

    def _replay_step(self, folder: Path, run_id: str) -> int:
        spool = folder / SPOOL
        sent = Sent.read(folder)
        if sent.run and not sent.sending and sent.offset == spool.stat().st_size and self._is_there(sent.run):
            return 0
        nested = self._find_or_create(run_id, folder.name).info.run_id
        known = sent.run == nested and sent.offset <= spool.stat().st_size
        start = sent.offset if known else 0
        # In doubt (a crash while sending, a lost note, another spool) the server is asked what has arrived.
        doubtful = sent.sending or not known
        history = _History(self._client, nested) if doubtful else None
        offset = start
        for batch in batches(spool, start):
            Sent(nested, offset, sending=True).write(folder)
            self._send(nested, batch, history)
            offset = batch.end
            Sent(nested, offset).write(folder)
        return offset - start

    def _is_there(self, mlflow_run: str) -> bool:
        """Whether the run that a spool went to is still in this store: the address may have changed."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(mlflow_run).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _send(self, run: str, batch: Batch, history: _History | None) -> None:
        """Parameters apart: a conflicting one rejects its whole batch."""
        from mlflow.entities import Metric, Param, RunTag

        params = [Param(key, value) for key, value in batch.params.items()]
        tags = [RunTag(key, value) for key, value in batch.tags.items()]
        lines = batch.metrics if history is None else [m for m in batch.metrics if history.is_new(m)]
        metrics = [Metric(m["key"], m["value"], m["timestamp"], m["step"]) for m in lines]
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
        """Sends; False when the server refuses the content (rather than not answering)."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(run, **entities)
        except MlflowException as error:
            if error_code(error) not in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}:
                raise
            return False
        return True


class _History:
    """The metrics that a run holds there already, asked for once a key."""

    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run
        self._steps: dict[str, set[int]] = {}

    def is_new(self, metric: dict[str, Any]) -> bool:
        """Whether nothing is known at the metric's step; a spool has one value a key and step."""
        key, step = metric["key"], metric["step"]
        if key not in self._steps:
            self._steps[key] = {m.step for m in self._client.get_metric_history(self._run, key)}
        new = step not in self._steps[key]
        self._steps[key].add(step)
        return new

"""Claims that decide which process starts a training: for each train key and try, exactly one process wins.

Kubeflow Pipelines starts every run that it is sent, also the same one twice. Writing a new MLflow parameter
is atomic, so the parameter `{key}.{n}` decides which of several processes makes the n-th try. A claim is
settled once its run exists (or was given up); a process that dies before that leaves a claim that expires.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.registry.server import client, error_code, experiment_id, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "embedline-ledger"
_TAG = "embedline.claims"
LEASE_S = 600.0


@dataclass(frozen=True)
class Claim:
    """The n-th try at a key.

    Args:
        by: host and process that hold the claim.
        at: seconds since the epoch.
        settled: the id of the run that was started, `withdrawn` when none was, None while it is open.
    """

    number: int
    by: str
    at: float
    settled: str | None

    @property
    def pending(self) -> bool:
        """Return whether the holder may still start a run."""
        return self.settled is None and time.time() - self.at < LEASE_S


class Claims:
    """The claims on the trainings of one registered model; every call can raise TrackingError."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri = uri
        with tracking_errors(uri):
            self._client = client(uri)
            self._run = _claims_run(self._client, uri, name)

    def newest(self, key: str) -> Claim | None:
        """Return the last claim on `key`; None when there is none."""
        with tracking_errors(self._uri):
            params = self._client.get_run(self._run).data.params
        number = 0
        while _name(key, number + 1) in params:
            number += 1
        text = params.get(_name(key, number))
        if text is None:
            return None
        values = json.loads(text)
        return Claim(number, values["by"], values["at"], params.get(_settled(key, number)))

    def take(self, key: str, number: int, by: str) -> bool:
        """Write claim `number`; return False when another process has written it."""
        token = uuid.uuid4().hex  # MLflow accepts the same value twice
        return self._write(
            _name(key, number), json.dumps({"by": by, "at": time.time(), "token": token}, ensure_ascii=False)
        )

    def settle(self, key: str, number: int, run: str) -> None:
        """Record the result of a claim: a run's id, or `withdrawn`. A second result is ignored."""
        self._write(_settled(key, number), run)

    def _write(self, key: str, value: str) -> bool:
        from mlflow.exceptions import MlflowException

        with tracking_errors(self._uri):
            try:
                self._client.log_param(self._run, key, value)
            except MlflowException as error:
                refused = error_code(error) == "INVALID_PARAMETER_VALUE"
                if refused and key in self._client.get_run(self._run).data.params:
                    return False  # another process was faster
                raise  # also when the run was deleted
        return True


def _claims_run(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of the one run that holds a model's claims; create it when it is new.

    Names of experiments are unique and their first tags are written on creation: the process that creates the
    experiment decides which run it is. (A run found by its tag could be made twice, by two machines at once.)
    """
    own = f"{EXPERIMENT}/claims of {name}"
    experiment = client.get_experiment_by_name(own)
    if experiment is None:
        made = client.create_run(experiment_id(client, uri, EXPERIMENT), run_name=f"claims of {name}")
        client.set_terminated(made.info.run_id)
        experiment = client.get_experiment(experiment_id(client, uri, own, tags={_TAG: made.info.run_id}))
        if experiment.tags[_TAG] != made.info.run_id:
            client.delete_run(made.info.run_id)  # another process was faster
    return str(experiment.tags[_TAG])


def _name(key: str, number: int) -> str:
    return f"{key}.{number}"


def _settled(key: str, number: int) -> str:
    return f"{key}.{number}.settled"

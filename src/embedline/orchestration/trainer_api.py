"""TrainJob at the Kubernetes API server: create, read, wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from embedline.errors import EmbedlineError, InputError, first_line
from embedline.redaction import without_secrets

if TYPE_CHECKING:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
    from kubernetes.client import CustomObjectsApi

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
POLL_S = 2.0
POLL_MAX_S = 30.0
UNREACHABLE_S = 900.0  # an upgrade makes an API server unreachable for minutes; jobs run on meanwhile

_RETRIED = frozenset({0, 408, 429, 500, 502, 503, 504})
_FIXES = {
    401: "Check that the task's service account has a token.",
    403: "The task's service account needs to create and get trainjobs (infra/kustomize/base/accounts.yaml).",
    404: "Check that Kubeflow Trainer is installed and that the namespace exists.",
}


class TrainJob:
    """One job at the API server. Calls are retried after temporary failures (a restart, a full queue)."""

    def __init__(self, api: CustomObjectsApi, namespace: str, name: str) -> None:
        self.api, self.namespace, self.name = api, namespace, name

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def read(self) -> TrainerV1alpha1TrainJob | None:
        """Return the job; None when there is none."""
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
        from kubernetes.client import ApiException

        try:
            content = self._call(self.api.get_namespaced_custom_object, self.name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise self._refused(error) from error
        return TrainerV1alpha1TrainJob.from_dict(content)

    def create(self, job: TrainerV1alpha1TrainJob) -> None:
        """Start the job, unless another try has started it at the same moment.

        Raises:
            InputError: the server refuses it.
        """
        from kubernetes.client import ApiException

        try:
            self._call(self.api.create_namespaced_custom_object, job.to_dict())
        except ApiException as error:
            if error.status != 409:
                raise self._refused(error) from error

    def wait(self) -> str | None:
        """Wait until the job has ended; return None when it is complete, else its failure.

        Raises:
            EmbedlineError: the job was deleted.
        """
        pause = POLL_S
        while True:
            job = self.read()
            if job is None:
                raise EmbedlineError("was deleted while it was running.", where=f"TrainJob {self}")
            for condition in (job.status.conditions or []) if job.status else []:
                if condition.status == "True" and condition.type == "Complete":
                    return None
                if condition.status == "True" and condition.type == "Failed":
                    return f"failed ({condition.reason}): {condition.message.rstrip('.')}."
            time.sleep(pause)
            pause = min(POLL_MAX_S, pause * 1.5)

    def _call(self, call: Any, last: Any) -> Any:
        """Make a call of the API, with retries for `UNREACHABLE_S`; `last` is its last argument."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        deadline, pause = time.monotonic() + UNREACHABLE_S, POLL_S
        while True:
            try:
                return call(GROUP, VERSION, self.namespace, PLURAL, last, _request_timeout=30)
            except (ApiException, HTTPError, OSError) as error:
                if isinstance(error, ApiException) and error.status not in _RETRIED:
                    raise
                if time.monotonic() > deadline:
                    minutes = f"{UNREACHABLE_S / 60:.0f} minutes"
                    raise EmbedlineError(
                        f"the API server has not answered for {minutes} ({_short(error)}).",
                        where=f"TrainJob {self}",
                        fix="The job runs on; the next try attaches to it.",
                    ) from error
            time.sleep(pause)
            pause = min(POLL_MAX_S, pause * 2)

    def _refused(self, error: Any) -> InputError:
        reason = " ".join(without_secrets(str(error.body or error.reason)).split())[:500]
        return InputError(
            f"the cluster refused it ({error.status}): {reason}.",
            where=f"TrainJob {self}",
            fix=_FIXES.get(error.status, "See the settings in train_job."),
        )


def _short(error: Any) -> str:
    status = getattr(error, "status", None)
    return f"{status} {error.reason}" if status else first_line(error)

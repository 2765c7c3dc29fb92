"""Submission of the compiled pipeline to a Kubeflow Pipelines server: upload a version, start runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from embedline import __version__
from embedline.config.load import load_config
from embedline.errors import InputError
from embedline.orchestration.compile import compile_pipeline, pipeline_texts
from embedline.orchestration.schedule import Schedule
from embedline.orchestration.server import connect, list_all, with_retries
from embedline.orchestration.uploads import find_or_create_experiment, find_or_upload_version, slug

PIPELINE = "embedline-retrain"
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def submit_run(
    preset: str,
    overrides: Sequence[str],
    workspace: str | None,
    *,
    host: str,
    experiment: str = "",
    namespace: str | None = None,
    service_account: str = "",
    key: str = "",
    schedule: Schedule | None = None,
) -> dict[str, str]:
    """Start a run of this preset, or a recurring run, from an uploaded pipeline version.

    Args:
        workspace: folder of the shared volume; else as in the preset's cluster.workspace.
        host: address of the pipelines API.
        experiment: an existing experiment; else `embedline`, which is created when it is new.
        namespace: profile namespace, on a multi-user server.
        service_account: account of the pods; else the preset's cluster.service_account.
        key: train key; the run's name holds its beginning, its description all of it.
        schedule: makes a recurring run.

    Returns:
        what (run, recurring run), id, url, name, version, experiment; of a recurring run its schedule, and
        `next`, the first moment of a cron expression in UTC.

    Raises:
        InputError: the config is not valid, or the server refuses.
        EmbedlineError: the server fails.

    Example:
        >>> run = submit_run("demo", ["seed=7"], None, host="http://localhost:8080")
        >>> run["what"], run["url"]
        ('run', 'http://localhost:8080/#/runs/details/4f1d…')
    """
    config, texts = load_config(preset, overrides), pipeline_texts(preset, overrides)
    text = compile_pipeline(preset, overrides, workspace, defaults=False)
    with connect(host, namespace) as client:
        opened = find_or_create_experiment(client, experiment, namespace)
        version = find_or_upload_version(client, config.name, text, PIPELINE, namespace)
        job = _Job(
            experiment=opened.experiment_id,
            name=_job_name(config.name, key, schedule),
            mark=str(uuid.uuid4()),
            about=f"{config.name}, by embedline {__version__}."
            + (f" Train key: {key}." if key else "")
            + (f" Schedule: {schedule}." if schedule else ""),
            reference=(version.pipeline_id, version.pipeline_version_id),
            parameters={
                **texts,
                "workspace": workspace or config.cluster.workspace.mounted_at,
            },
            service_account=service_account or config.cluster.service_account,
        )
        made = _start_recurring(client, job, schedule) if schedule else _start(client, job)
        made |= _timing(schedule) if schedule else {}
        about = {"name": job.name, "version": version.display_name, "experiment": opened.display_name}
        return {**made, "url": f"{host.rstrip('/')}{made['url']}", **about}


def upload_version(
    preset: str,
    overrides: Sequence[str],
    workspace: str | None,
    *,
    host: str,
    pipeline: str = PIPELINE,
    namespace: str | None = None,
) -> dict[str, str]:
    """Upload the compiled pipeline as a version of `pipeline`, with preset and overrides as its defaults.

    The pipeline is created when it is new; the same content is uploaded only once.

    Raises:
        InputError: the config is not valid, or the server refuses.
        EmbedlineError: the server fails.
    """
    config, text = load_config(preset, overrides), compile_pipeline(preset, overrides, workspace)
    with connect(host, namespace) as client:
        made = find_or_upload_version(client, config.name, text, pipeline, namespace)
        url = f"/#/pipelines/details/{made.pipeline_id}/version/{made.pipeline_version_id}"
        return {
            "what": "pipeline version",
            "id": made.pipeline_version_id,
            "url": f"{host.rstrip('/')}{url}",
            "name": made.display_name,
            "pipeline": made.pipeline_id,
        }


def cancel(job_id: str, *, host: str, namespace: str | None = None) -> dict[str, str]:
    """Stop a run, or disable a recurring run. A run that has ended is not changed.

    Returns:
        what (run, recurring run), id, url, state.

    Raises:
        InputError: there is no such run, or the server refuses.
    """
    from kfp_server_api import ApiException

    with connect(host, namespace) as client:
        what, url, state = "run", f"/#/runs/details/{job_id}", ""
        try:
            state = client.get_run(job_id).state
            if state not in _ENDED:
                with_retries(lambda: client.terminate_run(job_id) or True)
                state = client.get_run(job_id).state
        except ApiException as error:
            if error.status != 404:
                raise
            what, url = "recurring run", f"/#/recurringrun/details/{job_id}"
            state = _disable(client, job_id, host)
        return {"what": what, "id": job_id, "url": f"{host.rstrip('/')}{url}", "state": state}


@dataclass(frozen=True)
class _Job:
    """Common parts of runs and recurring runs; the mark identifies this submission."""

    experiment: str
    name: str
    mark: str
    about: str
    reference: tuple[str, str]
    parameters: dict[str, str]
    service_account: str | None

    @property
    def description(self) -> str:
        return f"{self.about} Submission: {self.mark}."


def _start(client: Any, job: _Job) -> dict[str, str]:
    """Start a run through the API itself: kfp's own `run_pipeline` cannot set a description."""
    models = client.api_models
    pipeline, version = job.reference
    body = models.V2beta1Run(
        experiment_id=job.experiment,
        display_name=job.name,
        description=job.description,
        pipeline_version_reference=models.V2beta1PipelineVersionReference(
            pipeline_id=pipeline, pipeline_version_id=version
        ),
        runtime_config=models.V2beta1RuntimeConfig(parameters=job.parameters),
        service_account=job.service_account,
    )
    made = with_retries(
        lambda: client.runs.run_service_create_run(run=body),
        lambda: _marked(list_all(client.list_runs, "runs", job.name, experiment_id=job.experiment), job),
    )
    return {"what": "run", "id": made.run_id, "url": f"/#/runs/details/{made.run_id}"}


def _start_recurring(client: Any, job: _Job, schedule: Schedule) -> dict[str, str]:
    def existing() -> list[Any]:
        return list(
            list_all(client.list_recurring_runs, "recurring_runs", job.name, experiment_id=job.experiment)
        )

    for other in existing():
        if other.status == "ENABLED":
            raise InputError(
                f"{job.name} is scheduled already (recurring run {other.recurring_run_id}).",
                fix=f"Stop that one first: embedline submit --cancel {other.recurring_run_id}",
            )
    pipeline, version = job.reference
    made = with_retries(
        lambda: client.create_recurring_run(
            job.experiment,
            job.name,
            description=job.description,
            cron_expression=schedule.cron or None,
            interval_second=schedule.interval_s or None,
            max_concurrency=1,
            no_catchup=True,
            params=job.parameters,
            pipeline_id=pipeline,
            version_id=version,
            service_account=job.service_account,
        ),
        lambda: _marked(existing(), job),
    )
    key = made.recurring_run_id
    return {"what": "recurring run", "id": key, "url": f"/#/recurringrun/details/{key}"}


def _timing(schedule: Schedule) -> dict[str, str]:
    first = schedule.next_after(datetime.now(UTC))
    return {"schedule": str(schedule), **({"next": first.isoformat()} if first else {})}


def _marked(runs: Iterable[Any], job: _Job) -> Any:
    """Return the run of this submission; None when there is none."""
    return next((run for run in runs if job.mark in (run.description or "")), None)


def _disable(client: Any, key: str, host: str) -> str:
    from kfp_server_api import ApiException

    try:
        client.get_recurring_run(key)
    except ApiException as error:
        if error.status != 404:
            raise
        raise InputError(f"there is no run and no recurring run {key!r}.", where=host) from error
    with_retries(lambda: client.disable_recurring_run(key) or True)
    return str(client.get_recurring_run(key).status)


def _job_name(run: str, key: str, schedule: Schedule | None) -> str:
    if schedule:
        return f"{slug(run)}-scheduled"
    return f"{slug(run)}-{key[:12] or time.strftime('%Y%m%d-%H%M%S')}"

"""Hand the compiled pipeline to a Kubeflow Pipelines server: a version of it, and runs made from that."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from embedline import __version__
from embedline.config.load import load_config, preset_text
from embedline.errors import InputError
from embedline.orchestration.compile import compile_pipeline, one_line
from embedline.orchestration.schedule import Schedule
from embedline.orchestration.server import connect, every, once_more
from embedline.orchestration.uploads import find_experiment, find_version, slug

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
    """Start a run of this preset, or have one started again and again, from an uploaded pipeline version.

    Args:
        workspace: folder of the shared volume; else as in the preset's cluster.workspace.
        host: address of the pipelines API.
        experiment: one that is there; else `embedline`, which is made when it is not.
        namespace: profile namespace, on a server with several users.
        service_account: that the pods run as; else the preset's cluster.service_account.
        key: train key; the run's name carries its beginning, its description the whole.

    Returns:
        what (run, recurring run), id, url, name, version, experiment.

    Raises:
        InputError: the config is not valid, or the server refuses.
        EmbedlineError: the server fails.
    """
    config = load_config(preset, overrides)
    text = compile_pipeline(preset, overrides, workspace, defaults=False)
    with connect(host, namespace) as client:
        place = find_experiment(client, experiment, namespace)
        version = find_version(client, config.name, text, PIPELINE, namespace)
        job = _Job(
            experiment=place.experiment_id,
            name=_job_name(config.name, key, schedule),
            mark=str(uuid.uuid4()),
            about=f"{config.name}, by embedline {__version__}." + (f" Train key: {key}." if key else ""),
            reference=(version.pipeline_id, version.pipeline_version_id),
            parameters={
                "preset": preset_text(preset),
                "overrides": one_line(overrides),
                "workspace": workspace or config.cluster.workspace.mounted_at,
            },
            service_account=service_account or config.cluster.service_account,
        )
        made = _recurring(client, job, schedule) if schedule else _run(client, job)
        about = {"name": job.name, "version": version.display_name, "experiment": place.display_name}
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
    """Upload the compiled pipeline, these overrides being its defaults, as a version of `pipeline`.

    The pipeline is made when it is new; what was uploaded before is found again.

    Raises:
        InputError: the config is not valid, or the server refuses.
        EmbedlineError: the server fails.
    """
    config, text = load_config(preset, overrides), compile_pipeline(preset, overrides, workspace)
    with connect(host, namespace) as client:
        made = find_version(client, config.name, text, pipeline, namespace)
        url = f"/#/pipelines/details/{made.pipeline_id}/version/{made.pipeline_version_id}"
        return {
            "what": "pipeline version",
            "id": made.pipeline_version_id,
            "url": f"{host.rstrip('/')}{url}",
            "name": made.display_name,
            "pipeline": made.pipeline_id,
        }


def cancel(job_id: str, *, host: str, namespace: str | None = None) -> dict[str, str]:
    """End a run, or start no more of a recurring one. What has ended is left alone.

    Returns:
        what (run, recurring run), id, url, state.

    Raises:
        InputError: there is neither, or the server refuses.
    """
    from kfp_server_api import ApiException

    with connect(host, namespace) as client:
        what, url, state = "run", f"/#/runs/details/{job_id}", ""
        try:
            state = client.get_run(job_id).state
            if state not in _ENDED:
                once_more(lambda: client.terminate_run(job_id) or True)
                state = client.get_run(job_id).state
        except ApiException as error:
            if error.status != 404:
                raise
            what, url = "recurring run", f"/#/recurringrun/details/{job_id}"
            state = _disable(client, job_id, host)
        return {"what": what, "id": job_id, "url": f"{host.rstrip('/')}{url}", "state": state}


@dataclass(frozen=True)
class _Job:
    """What runs and recurring runs have in common; the mark tells this submission from all others."""

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


def _run(client: Any, job: _Job) -> dict[str, str]:
    """kfp's own `run_pipeline` cannot describe a run."""
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
    made = once_more(
        lambda: client.runs.run_service_create_run(run=body),
        lambda: _marked(every(client.list_runs, "runs", job.name, experiment_id=job.experiment), job),
    )
    return {"what": "run", "id": made.run_id, "url": f"/#/runs/details/{made.run_id}"}


def _recurring(client: Any, job: _Job, schedule: Schedule) -> dict[str, str]:
    def known() -> list[Any]:
        return list(
            every(client.list_recurring_runs, "recurring_runs", job.name, experiment_id=job.experiment)
        )

    for other in known():
        if other.status == "ENABLED":
            raise InputError(
                f"{job.name} is scheduled already (recurring run {other.recurring_run_id}).",
                fix=f"Stop that first: embedline submit --cancel {other.recurring_run_id}",
            )
    pipeline, version = job.reference
    made = once_more(
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
        lambda: _marked(known(), job),
    )
    key = made.recurring_run_id
    return {"what": "recurring run", "id": key, "url": f"/#/recurringrun/details/{key}"}


def _marked(found: Iterable[Any], job: _Job) -> Any:
    return next((each for each in found if job.mark in (each.description or "")), None)


def _disable(client: Any, key: str, host: str) -> str:
    from kfp_server_api import ApiException

    try:
        client.get_recurring_run(key)
    except ApiException as error:
        if error.status != 404:
            raise
        raise InputError(f"there is no run and no recurring run {key!r}.", where=host) from error
    once_more(lambda: client.disable_recurring_run(key) or True)
    return str(client.get_recurring_run(key).status)


def _job_name(run: str, key: str, schedule: Schedule | None) -> str:
    if schedule:
        return f"{slug(run)}-scheduled"
    return f"{slug(run)}-{key[:12] or time.strftime('%Y%m%d-%H%M%S')}"

"""Training on several nodes: a step starts a TrainJob of Kubeflow Trainer and waits for it.

The job's name is derived from run, step and key, so that a retried task attaches to the job that it started
before instead of starting another. A stopped task does not stop its job.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from embedline.artifacts.record import StepRecord
from embedline.components.image import GPU_IMAGE, IMAGE
from embedline.config.cluster import amount
from embedline.config.train_job import TrainJobConfig
from embedline.environment import THREADS
from embedline.errors import EmbedlineError, InputError, StepError
from embedline.execution.delegation import Delegate, DelegatedStep
from embedline.execution.kfp_component import run_component
from embedline.execution.torchrun import WORKER, processes_here, trains
from embedline.orchestration.trainer_api import GROUP, VERSION, TrainJob
from embedline.steps.context import StepConfig

if TYPE_CHECKING:
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
    from kubernetes.client import CustomObjectsApi

NODE = "node"  # name of the training pods' group and of their container in the Trainer's runtimes
_NAME_CHARS = 40  # pods are named <job>-node-0-<index>-<random>, in at most 63
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def run_training(name: str, config_json: str, workspace: str, run: str, **parts: Any) -> StepRecord:
    """Run the component of a training step, in a TrainJob where the config has several nodes on a cluster."""
    return run_component(name, config_json, workspace, run, where=choose_delegate, **parts)


def choose_delegate(name: str, config_json: str, workspace: Path) -> Delegate | None:
    """Return the delegate that runs the step in a TrainJob; without a cluster or with one node the local one.

    Raises:
        InputError: the task's pod has no token for the Kubernetes API.
    """
    config = TrainJobConfig.model_validate(StepConfig.model_validate_json(config_json).train_job)
    if config.nodes == 1 or "KUBERNETES_SERVICE_HOST" not in os.environ or not trains(name, config_json):
        return processes_here(name, config_json, workspace)
    from kubernetes import client
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config()
    except ConfigException as error:
        raise InputError(
            f"the task cannot start a TrainJob in Kubernetes ({error}).",
            where="train_job.nodes",
            fix="Give its service account a token, or train on one node.",
        ) from error
    api = client.CustomObjectsApi()
    namespace = config.namespace or _NAMESPACE.read_text(encoding="utf-8").strip()
    return lambda delegated: train_in_job(delegated, config, workspace, namespace, api)


def train_in_job(
    delegated: DelegatedStep,
    config: TrainJobConfig,
    workspace: Path,
    namespace: str,
    api: CustomObjectsApi,
) -> None:
    """Start the step's job, or find it, and wait until it has ended.

    Args:
        workspace: mount path of the volume, the same in the task and in the job's pods.

    Raises:
        InputError: the cluster refuses the job, or has no Trainer.
        EmbedlineError: the job failed; with the step's error, and final where the step's failure was.
    """
    job = TrainJob(api, namespace, job_name(delegated.run, delegated.step, delegated.key))
    if job.read() is None:
        delegated.write()
        job.create(manifest(delegated, config, workspace, namespace))
        typer.echo(f"started TrainJob {job}: {config.nodes} nodes of {config.processes_per_node} processes")
    else:
        typer.echo(f"attached to TrainJob {job}, which an earlier try started")
    if failure := job.wait():
        raise _job_error(job, failure, delegated.record())


def _job_error(job: TrainJob, failure: str, record: StepRecord | None) -> EmbedlineError:
    """Return the error of a failed job, with the step's own error where its first process wrote one."""
    fix = (
        f"See kubectl -n {job.namespace} describe trainjob {job.name}. The run's next try attaches to the "
        "same job: delete it to start another."
    )
    where = f"TrainJob {job}"
    if record is None or record.status != "failed":
        return EmbedlineError(failure, where=where, fix=fix)
    kind = StepError if record.final else EmbedlineError
    error = kind(f"{failure} Error of the first process: {record.error}", where=where, fix=fix)
    error.exit_code = record.exit_code
    return error


def job_name(run: str, step: str, key: str) -> str:
    """Return a DNS label that begins with a letter, the same for the same run, step and key."""
    digest = hashlib.sha256(f"{run}\n{step}\n{key}".encode()).hexdigest()[:10]
    words = re.sub(r"[^a-z0-9]+", "-", f"{step}-{run}".lower()).strip("-")
    return f"{words[: _NAME_CHARS - 11].strip('-')}-{digest}"


def manifest(
    delegated: DelegatedStep, config: TrainJobConfig, workspace: Path, namespace: str
) -> TrainerV1alpha1TrainJob:
    """Return the job's manifest: torchrun in its pods, the workspace mounted, secrets by reference."""
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    torchrun = ["python", "-m", "torch.distributed.run"]  # reads the runtime's PET_* variables
    on_gpus = any(name.endswith("/gpu") for name in config.resources)
    if on_gpus:
        torchrun.append("--virtual-local-rank")  # each process sees only its own GPU
    folder = workspace / delegated.folder.relative_to(delegated.workspace)
    trainer: dict[str, Any] = {
        "image": config.image or (GPU_IMAGE if on_gpus else IMAGE),
        "numNodes": config.nodes,
        "numProcPerNode": config.processes_per_node,
        "command": [*torchrun, "-m", WORKER, str(folder)],
        "env": _environment(config),
    }
    if config.resources:
        trainer["resourcesPerNode"] = {"limits": config.resources, "requests": config.resources}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": config.runtime_kind, "name": config.runtime},
        "trainer": trainer,
    }
    if config.claim:
        spec["runtimePatches"] = [_mounted(config.claim, workspace)]
    if config.timeout_s:
        spec["activeDeadlineSeconds"] = config.timeout_s
    job = TrainerV1alpha1TrainJob.from_dict(
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TrainJob",
            "metadata": {
                "name": job_name(delegated.run, delegated.step, delegated.key),
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "embedline"},
                "annotations": {
                    "embedline.dev/run": delegated.run,
                    "embedline.dev/step": delegated.step,
                    "embedline.dev/key": delegated.key,
                },
            },
            "spec": spec,
        }
    )
    assert job is not None
    return job


def _environment(config: TrainJobConfig) -> list[dict[str, Any]]:
    # The pods read only the workspace: no hub, no tracking server (the task sends the spool).
    plain = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    secrets = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}
        for name, secret in config.secrets.items()
    ]
    if cpus := config.resources.get("cpu"):  # torchrun gives each of several processes one thread
        plain |= dict.fromkeys(THREADS, str(max(1, math.ceil(amount(cpus)) // config.processes_per_node)))
    return [*({"name": name, "value": value} for name, value in plain.items()), *secrets]


def _mounted(claim: str, workspace: Path) -> dict[str, Any]:
    pod = {
        "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": claim}}],
        "containers": [
            {"name": NODE, "volumeMounts": [{"name": "workspace", "mountPath": str(workspace)}]},
        ],
    }
    jobs = [{"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}]
    return {
        "manager": "embedline.dev/pipeline",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}},
    }

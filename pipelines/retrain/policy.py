"""The requests of a task to the pipeline engine and to Kubernetes, from the section `cluster`."""

from collections.abc import Callable

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_task import PipelineTask

from embedline.components.image import GPU_IMAGE
from embedline.config.cluster import ClusterConfig, KeyOf, TaskConfig
from embedline.config.schema import RunConfig
from embedline.config.secrets import MOUNTED_AT, mounted_secrets
from embedline.environment import HUB_CACHE

Settle = Callable[[str, PipelineTask], PipelineTask]


def on_this_machine(step: str, task: PipelineTask) -> PipelineTask:
    """Set the retries of a task: kfp's local runner supports nothing else."""
    return _tried_again(task, ClusterConfig().task(step))


def on_a_cluster(config: RunConfig, workspace: str) -> Settle:
    """Return a function that applies `cluster` to a task and mounts the shared volume at `workspace`."""
    cluster = config.cluster

    def settle(step: str, task: PipelineTask) -> PipelineTask:
        wanted = cluster.task(step)
        task.set_caching_options(enable_caching=bool(wanted.engine_cache))
        _tried_again(task, wanted)
        _sized(task, wanted)
        _placed(task, wanted)
        _informed(task, wanted)
        task.set_env_variable("HF_HOME", f"{workspace}/{HUB_CACHE}")
        for name in mounted_secrets(config):
            kubernetes.use_secret_as_volume(task, secret_name=name, mount_path=str(MOUNTED_AT / name))
        if cluster.workspace.claimed:
            kubernetes.mount_pvc(task, pvc_name=cluster.workspace.claimed, mount_path=workspace)
        if cluster.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, secret_names=list(cluster.image_pull_secrets))
        return task

    return settle


def pipeline_config(config: RunConfig | None) -> dsl.PipelineConfig | None:
    """Configure the volume that the engine makes for each run; None where the config has none."""
    volume = config.cluster.workspace if config else None
    if volume is None or volume.size is None:
        return None
    patch: dict = {"accessModes": [volume.access_mode]}
    if volume.storage_class:
        patch["storageClassName"] = volume.storage_class
    made = dsl.WorkspaceConfig(size=volume.size, kubernetes=dsl.KubernetesWorkspaceConfig(pvcSpecPatch=patch))
    return dsl.PipelineConfig(workspace=made)


def _tried_again(task: PipelineTask, wanted: TaskConfig) -> PipelineTask:
    """Set the retries of a task.

    An error that returns at every try (bad input, first of all) is not tried again. On this machine, with
    processes or containers, the driver ends the task's retries. A cluster's engine counts tries and knows no
    such errors: its next pod finds the error in the step's record and ends with it before any work.
    """
    if not wanted.retries:
        return task
    return task.set_retry(
        num_retries=wanted.retries,
        backoff_duration=f"{wanted.backoff_s}s",
        backoff_factor=wanted.backoff_factor,
        backoff_max_duration=f"{wanted.backoff_max_s}s",
    )


def _sized(task: PipelineTask, wanted: TaskConfig) -> None:
    for size, ask in (
        (wanted.cpu_request, task.set_cpu_request),
        (wanted.cpu_limit, task.set_cpu_limit),
        (wanted.memory_request, task.set_memory_request),
        (wanted.memory_limit, task.set_memory_limit),
    ):
        if size:
            ask(size)
    if wanted.accelerator and wanted.accelerators != 0:
        task.set_container_image(GPU_IMAGE)
        task.set_accelerator_type(wanted.accelerator).set_accelerator_limit(wanted.accelerators or 1)
    if wanted.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name="shared-memory",
            mount_path="/dev/shm",
            medium="Memory",
            size_limit=wanted.shared_memory,
        )


def _placed(task: PipelineTask, wanted: TaskConfig) -> None:
    for label, value in wanted.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for taint in wanted.tolerations or []:
        kubernetes.add_toleration(
            task,
            key=taint.key or None,
            operator=taint.operator,
            value=taint.value or None,
            effect=taint.effect,
            toleration_seconds=taint.seconds,
        )
    if wanted.timeout_s:
        kubernetes.set_timeout(task, seconds=wanted.timeout_s)


def _informed(task: PipelineTask, wanted: TaskConfig) -> None:
    """Set environment variables by reference: their values appear in no pipeline, log or parameter."""
    for variables, use, keys in (
        (wanted.secrets, kubernetes.use_secret_as_env, "secret_key_to_env"),
        (wanted.config_maps, kubernetes.use_config_map_as_env, "config_map_key_to_env"),
    ):
        for variable, source in sorted(variables.items()):
            _use(task, use, keys, variable, source)


def _use(task: PipelineTask, use: Callable, keys: str, variable: str, source: KeyOf) -> None:
    use(task, source.name, **{keys: {source.key: variable}, "optional": source.optional})

"""The section `cluster`: what the pipeline's tasks ask of Kubernetes. A run on this machine ignores it.

It becomes part of the pipeline when that is compiled; overriding it in the pipelines UI is too late.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from embedline.config.base import Section

_COMPUTING = ("prune_before", "pretrain", "train_unsupervised", "mine", "train_supervised", "prune_after")
_BEFORE, _AFTER = (
    ("preflight", "ingest", "clean"),
    ("export", "evaluate", "gate", "promote", "report", "finish"),
)
# Groups of tasks, from the widest to the narrowest.
GROUPS: dict[str, tuple[str, ...]] = {
    "all": (*_BEFORE, *_COMPUTING, *_AFTER),
    "reaching": ("ingest", "promote"),
    "computing": (*_COMPUTING, "evaluate"),
    "training": ("pretrain", "train_unsupervised", "train_supervised"),
}
TASKS = GROUPS["all"]
# The engine knows neither the outside world (preflight, promote) nor that finish needs the gate's record.
NEVER_CACHED = ("preflight", "gate", "promote", "finish")
PER_RUN = "/kfp-workspace"  # where the engine mounts the volume that it makes for a run
CLAIM, TRACKING = "embedline-workspace", "embedline-tracking"  # as infra/kustomize/base names them

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Cpu = Annotated[str, StringConstraints(pattern=r"^([0-9]*[.])?[0-9]+m?$")]
Memory = Annotated[str, StringConstraints(pattern=r"^[0-9]+([EPTGMK]i?)?$")]


class KeyOf(Section):
    """One key of a Kubernetes secret or config map, by name: never the value itself."""

    name: Name = Field(description="of the secret or config map")
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", description="in it")
    optional: bool = Field(False, description="the task starts without it, too")

    @model_validator(mode="before")
    @classmethod
    def _no_value(cls, given: object) -> object:
        """Refused without being repeated: what stands there may be the secret."""
        if isinstance(given, dict | KeyOf):
            return given
        raise ValueError("takes {name: …, key: …} of a secret or config map, never the value itself")


class Toleration(Section):
    """A taint that a task may be scheduled beside."""

    key: str = Field("", description="of the taint; with Exists, empty means any")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="how the value is compared")
    value: str = Field("", description="of the taint")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="of the taint; any when empty"
    )
    seconds: int | None = Field(None, ge=0, description="NoExecute: how long it is borne")


class TaskConfig(Section):
    """What one task, or a group of them, asks for; what is not set comes from the wider group."""

    cpu_request: Cpu | None = Field(None, description="cores the scheduler sets aside: 2, 500m")
    cpu_limit: Cpu | None = Field(None, description="cores it may use")
    memory_request: Memory | None = Field(None, description="memory the scheduler sets aside: 4G, 512Mi")
    memory_limit: Memory | None = Field(None, description="memory it may use")
    accelerator: str | None = Field(None, description="resource name, nvidia.com/gpu")
    accelerators: int | None = Field(None, ge=0, description="how many; 1 when only the accelerator is named")
    node_selector: dict[str, str] = Field({}, description="labels of the nodes it may run on")
    tolerations: list[Toleration] | None = None
    retries: int | None = Field(None, ge=0, le=10, description="of a task that failed; finish has none")
    backoff_s: int | None = Field(None, ge=0, description="seconds before the first retry")
    backoff_factor: float | None = Field(
        None, ge=1, description="each further retry waits so many times longer"
    )
    backoff_max_s: int | None = Field(None, ge=1, description="seconds it waits at most")
    timeout_s: int | None = Field(None, ge=1, description="seconds after which the pod is stopped")
    engine_cache: bool | None = Field(
        None,
        description="let the engine skip the task when it saw the same inputs. Off for every task: the "
        "engine's key knows neither the outside world nor the store, whose manifests find finished work in a "
        "second; a task that the engine skips is missing from run.json",
    )
    shared_memory: Memory | None = Field(None, description="size of /dev/shm, for data loaders")
    secrets: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a secret")
    config_maps: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a config map")


class VolumeConfig(Section):
    """The folder that all tasks share: runs, store, checkpoints. A pod that is tried again resumes there."""

    claim: Name | None = Field(
        None,
        description="existing volume claim; it outlives runs, so that they find each other's work. "
        "embedline-workspace when empty",
    )
    path: str = Field("", pattern=r"^(/.*)?$", description="where it is mounted; /workspace when empty")
    size: Memory | None = Field(
        None, description="instead of a claim: a volume of this size for each run, removed with the run"
    )
    storage_class: Name | None = Field(None, description="of the volume made; the cluster's own when empty")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        "ReadWriteOnce", description="of the volume made"
    )

    @model_validator(mode="after")
    def _one_or_the_other(self) -> VolumeConfig:
        if self.claim and self.size:
            raise ValueError("claim and size exclude each other: an existing volume, or one for each run")
        if self.size and self.path and not self.path.startswith(PER_RUN):
            raise ValueError(f"path: the engine mounts a volume that it makes at {PER_RUN}")
        return self

    @property
    def claimed(self) -> str | None:
        """The claim that is mounted; None where the engine makes a volume for each run."""
        return None if self.size else self.claim or CLAIM

    @property
    def mounted_at(self) -> str:
        return self.path or (PER_RUN if self.size else "/workspace")


# What every preset starts from; a preset's own `cluster.tasks` stand above all of these. Every task has its
# requests and limits: a namespace's quota refuses pods without, and its own defaults are too small for us.
DEFAULTS: dict[str, TaskConfig] = {
    "all": TaskConfig(
        cpu_request="500m",
        cpu_limit="4",
        memory_request="2G",
        memory_limit="8G",
        engine_cache=False,
        retries=0,
        backoff_s=2,
        backoff_factor=2.0,
        backoff_max_s=60,
        config_maps={"MLFLOW_TRACKING_URI": KeyOf(name=TRACKING, key="MLFLOW_TRACKING_URI", optional=True)},
    ),
    "reaching": TaskConfig(retries=2),
    "computing": TaskConfig(
        retries=2, cpu_request="2", cpu_limit="8", memory_request="4G", memory_limit="16G"
    ),
    "training": TaskConfig(shared_memory="1Gi"),
}


class ClusterConfig(Section):
    """Resources, secrets and volumes of the pipeline's tasks."""

    workspace: VolumeConfig = VolumeConfig()
    tasks: dict[str, TaskConfig] = Field(
        {},
        description="by task, or by group: all, reaching (ingest, promote), computing (everything that works "
        "on a model), training. A narrower entry wins; mappings are joined",
    )
    image_pull_secrets: list[Name] = Field([], description="of every task")
    service_account: Name | None = Field(None, description="that `embedline submit` runs the pipeline as")

    @model_validator(mode="after")
    def _tasks_are_known(self) -> ClusterConfig:
        for name, task in self.tasks.items():
            if name not in GROUPS and name not in TASKS:
                raise ValueError(f"tasks.{name}: is none of {', '.join([*GROUPS, *TASKS])}")
            if task.engine_cache and set(NEVER_CACHED) & set(GROUPS.get(name, (name,))):
                raise ValueError(f"tasks.{name}.engine_cache: {', '.join(NEVER_CACHED)} are never cached")
            if name == "finish" and task.retries:
                raise ValueError("tasks.finish.retries: the engine does not try an exit handler again")
        for name in TASKS:
            if self.task(name).accelerators and not self.task(name).accelerator:
                raise ValueError(f"tasks: {name} asks for accelerators, but not of which kind")
        return self

    def task(self, name: str) -> TaskConfig:
        """All that the task `name` asks for, groups and defaults included."""
        found: dict[str, object] = {}
        for source in (DEFAULTS, self.tasks):
            for group in [*(group for group in GROUPS if name in GROUPS[group]), name]:
                if group in source:
                    found = _joined(found, source[group])
        if name == "finish":
            found["retries"] = 0
        return TaskConfig.model_validate(found)


def _joined(wide: dict[str, object], narrow: TaskConfig) -> dict[str, object]:
    joined = dict(wide)
    for field in narrow.model_fields_set:
        value, before = getattr(narrow, field), wide.get(field)
        joined[field] = {**before, **value} if isinstance(before, dict) else value
    return joined

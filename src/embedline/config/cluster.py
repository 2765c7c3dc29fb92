"""The section `cluster`: what the pipeline's tasks ask of Kubernetes. A run on this machine ignores it.

It becomes part of the pipeline when that is compiled; overriding it in the pipelines UI is too late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

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
Number = BeforeValidator(
    lambda given: str(given) if type(given) in {int, float} else given  # `cpu: 2`, as Kubernetes takes it
)
Cpu = Annotated[str, Number, StringConstraints(pattern=r"^([0-9]*[.])?[0-9]+m?$")]
Memory = Annotated[str, Number, StringConstraints(pattern=r"^[0-9]+([EPTGM]i?|Ki)?$")]
_DNS, _WORD = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
Label = Annotated[str, StringConstraints(pattern=rf"^({_DNS}/)?{_WORD}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_WORD})?$")]


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

    @model_validator(mode="after")
    def _parts_fit(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("value: is not compared where the operator is Exists; leave one of them out")
        if self.operator == "Equal" and not self.key:
            raise ValueError("key: is missing; only operator: Exists goes without, and bears every taint")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds: goes with effect: NoExecute only")
        return self


class TaskConfig(Section):
    """What one task, or a group of them, asks for; what is not set comes from the wider group."""

    cpu_request: Cpu | None = Field(None, description="cores the scheduler sets aside: 2, 500m")
    cpu_limit: Cpu | None = Field(None, description="cores it may use")
    memory_request: Memory | None = Field(None, description="memory the scheduler sets aside: 4G, 512Mi")
    memory_limit: Memory | None = Field(None, description="memory it may use")
    accelerator: str | None = Field(
        None, pattern=rf"^{_DNS}/{_WORD}$", description="resource name, nvidia.com/gpu"
    )
    accelerators: int | None = Field(None, ge=0, description="how many; 1 when only the accelerator is named")
    node_selector: dict[Label, LabelValue] = Field({}, description="labels of the nodes it may run on")
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
        timeout_s=86_400,
        engine_cache=False,
        retries=0,
        backoff_s=2,
        backoff_factor=2.0,
        backoff_max_s=60,
        config_maps={"MLFLOW_TRACKING_URI": KeyOf(name=TRACKING, key="MLFLOW_TRACKING_URI", optional=True)},
    ),
    "reaching": TaskConfig(retries=2),
    "computing": TaskConfig(
        retries=2,
        cpu_request="2",
        cpu_limit="8",
        memory_request="4G",
        memory_limit="16G",
        timeout_s=14
        * 86_400,  # a training may take days; one that hangs must not hold its train key for ever
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
            task = self.task(name)
            if task.accelerators and not task.accelerator:
                raise ValueError(f"tasks: {name} asks for accelerators, but not of which kind")
            for request, limit in _SIZES:
                if _exceeds(asked := getattr(task, request), most := getattr(task, limit)):
                    raise ValueError(f"tasks: {name} has a {request} of {asked}, above its {limit} of {most}")
            if twice := sorted(task.secrets.keys() & task.config_maps.keys()):
                raise ValueError(f"tasks: {name} takes {twice[0]} from a secret and from a config map")
        return self

    def task(self, name: str) -> TaskConfig:
        """All that the task `name` asks for, groups and defaults included.

        A default gives way to what the preset says: Kubernetes refuses a request above its limit, and of two
        sources of one variable the preset's is meant.
        """
        ours, theirs = _asked(DEFAULTS, name), _asked(self.tasks, name)
        secrets, maps = theirs.get("secrets"), ours["config_maps"]
        if isinstance(secrets, dict) and isinstance(maps, dict):
            ours["config_maps"] = {key: source for key, source in maps.items() if key not in secrets}
        found = _joined(ours, theirs)
        for request, limit in _SIZES:
            if _exceeds(found.get(request), found.get(limit)):
                found |= {request: found[limit]} if request not in theirs else {}
                found |= {limit: found[request]} if limit not in theirs else {}
        if name == "finish":
            found["retries"] = 0
        return TaskConfig.model_validate(found)


_SIZES = (("cpu_request", "cpu_limit"), ("memory_request", "memory_limit"))
_POWERS = {unit: power for power, unit in enumerate("KMGTPE", 1)}


def _asked(tasks: Mapping[str, TaskConfig], name: str) -> dict[str, object]:
    """What the groups of a task and its own entry say, the narrower over the wider."""
    found: dict[str, object] = {}
    for group in [*(group for group in GROUPS if name in GROUPS[group]), name]:
        if group in tasks:
            fields = tasks[group].model_fields_set
            found = _joined(found, {field: getattr(tasks[group], field) for field in fields})
    return found


def _joined(wide: Mapping[str, object], narrow: Mapping[str, object]) -> dict[str, object]:
    joined = dict(wide)
    for field, value in narrow.items():
        before = wide.get(field)
        joined[field] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return joined


def _exceeds(request: object, limit: object) -> bool:
    return isinstance(request, str) and isinstance(limit, str) and _amount(request) > _amount(limit)


def _amount(quantity: str) -> float:
    """`500m`, `2`, `4G`, `16Gi` as a number (cores, bytes)."""
    number = quantity.rstrip("mKMGTPEi")
    unit = quantity[len(number) :]
    if unit == "m":
        return float(number) / 1000
    base = 1024.0 if unit.endswith("i") else 1000.0
    return float(number) * float(base ** _POWERS.get(unit[:1], 0))

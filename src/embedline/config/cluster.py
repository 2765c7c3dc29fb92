"""Section `cluster`: what the pipeline's tasks request from Kubernetes. A run on this machine ignores it.

It is compiled into the pipeline; an override in the pipelines UI has no effect on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from embedline.config.base import Section
from embedline.dag import STEPS

TASKS = ("preflight", *STEPS, "finish")
# Groups of tasks, from the widest to the narrowest.
GROUPS: dict[str, tuple[str, ...]] = {
    "all": TASKS,
    "reaching": ("ingest", "promote"),  # read from or write to servers outside the cluster
    "computing": tuple(
        name
        for name, step in STEPS.items()
        if "model" in step.outputs.values() or name in {"mine", "evaluate"}
    ),
    "training": tuple(name for name, step in STEPS.items() if step.trains),
}
# The engine's cache key covers neither the outside world (preflight, promote) nor the gate's record, which
# finish needs.
NEVER_CACHED = ("preflight", "gate", "promote", "finish")
PER_RUN = "/kfp-workspace"  # where the engine mounts the volume that it creates for a run
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
    """Reference to one key of a Kubernetes secret or config map: never the value itself."""

    name: Name = Field(description="name of the secret or config map")
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", description="key in the secret or config map")
    optional: bool = Field(False, description="whether the task also starts when it does not exist")

    @model_validator(mode="before")
    @classmethod
    def _no_value(cls, given: object) -> object:
        """Refuse a value without repeating it in the message: it may be the secret."""
        if isinstance(given, dict | KeyOf):
            return given
        raise ValueError("takes {name: …, key: …} of a secret or config map, never the value itself")


class Toleration(Section):
    """A taint of nodes that a task tolerates."""

    key: str = Field("", description="key of the taint; empty with operator Exists: any taint")
    operator: Literal["Equal", "Exists"] = Field(
        "Equal", description="Equal compares the value, Exists only the key"
    )
    value: str = Field("", description="value of the taint")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="effect of the taint; any effect when empty"
    )
    seconds: int | None = Field(
        None, ge=0, description="with NoExecute: seconds that the task stays on the node"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("value: is not compared where the operator is Exists; leave one of them out")
        if self.operator == "Equal" and not self.key:
            raise ValueError("key: is missing; without a key (every taint) the operator must be Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds: needs effect: NoExecute")
        return self


class TaskConfig(Section):
    """Resources and settings of one task or a group of tasks; unset ones come from the wider group."""

    cpu_request: Cpu | None = Field(None, description="cores that the scheduler reserves: 2, 500m")
    cpu_limit: Cpu | None = Field(None, description="cores that the task may use at most")
    memory_request: Memory | None = Field(None, description="memory that the scheduler reserves: 4G, 512Mi")
    memory_limit: Memory | None = Field(None, description="memory that the task may use at most")
    accelerator: str | None = Field(
        None, pattern=rf"^{_DNS}/{_WORD}$", description="resource name of the accelerator: nvidia.com/gpu"
    )
    accelerators: int | None = Field(
        None, ge=0, description="number of accelerators; 1 when only the accelerator is named"
    )
    node_selector: dict[Label, LabelValue] = Field(
        {}, description="labels that a node must have to run the task"
    )
    tolerations: list[Toleration] | None = None
    retries: int | None = Field(
        None,
        ge=0,
        le=10,
        description="number of retries after a failure; bad input is not tried again, and finish has none",
    )
    backoff_s: int | None = Field(None, ge=0, description="seconds before the first retry")
    backoff_factor: float | None = Field(
        None, ge=1, description="factor by which the wait grows with each further retry"
    )
    backoff_max_s: int | None = Field(None, ge=1, description="longest wait before a retry in seconds")
    timeout_s: int | None = Field(None, ge=1, description="seconds after which the pod is stopped")
    engine_cache: bool | None = Field(
        None,
        description="let the engine skip the task when the inputs are the same. Off for every task: the "
        "engine's cache key covers neither the outside world nor the store, whose manifests find finished "
        "work in a second; a task that the engine skips is missing from run.json",
    )
    shared_memory: Memory | None = Field(None, description="size of /dev/shm, for data loaders")
    secrets: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a secret")
    config_maps: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a config map")


class VolumeConfig(Section):
    """Volume that all tasks share, with runs, store and checkpoints; a retried pod resumes from it."""

    claim: Name | None = Field(
        None,
        description="existing volume claim, which stays after a run, so that later runs reuse its work; "
        "embedline-workspace when empty",
    )
    path: str = Field("", pattern=r"^(/.*)?$", description="mount path of the volume; /workspace when empty")
    size: Memory | None = Field(
        None, description="instead of a claim: size of a volume made for each run and removed with the run"
    )
    storage_class: Name | None = Field(
        None, description="storage class of the volume made for a run; the cluster's default when empty"
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = Field(
        "ReadWriteOnce", description="access mode of the volume made for a run"
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
        """Claim that is mounted; None where the engine makes a volume for each run."""
        return None if self.size else self.claim or CLAIM

    @property
    def mounted_at(self) -> str:
        """Mount path of the volume."""
        return self.path or (PER_RUN if self.size else "/workspace")


# Defaults of every preset; a preset's own `cluster.tasks` override all of them. Every task has requests and
# limits: a namespace's quota refuses pods without them, and the namespace's defaults are too small.
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
        # A training may take days; a limit ends one that hangs, so that its train key becomes free.
        timeout_s=14 * 86_400,
    ),
    "training": TaskConfig(shared_memory="1Gi"),
}


class ClusterConfig(Section):
    """Resources, secrets and volumes of the pipeline's tasks."""

    workspace: VolumeConfig = VolumeConfig()
    tasks: dict[str, TaskConfig] = Field(
        {},
        description="settings by task or group of tasks: all, reaching (ingest, promote), computing (mine, "
        "evaluate and every step that makes a model), training. A narrower entry overrides a wider one; "
        "mappings are merged",
    )
    image_pull_secrets: list[Name] = Field([], description="image pull secrets of every task")
    service_account: Name | None = Field(
        None, description="service account with which `embedline submit` runs the pipeline"
    )

    @model_validator(mode="after")
    def _tasks_are_known(self) -> ClusterConfig:
        for name, task in self.tasks.items():
            if name not in GROUPS and name not in TASKS:
                raise ValueError(f"tasks.{name}: is none of {', '.join([*GROUPS, *TASKS])}")
            if task.engine_cache and set(NEVER_CACHED) & set(GROUPS.get(name, (name,))):
                raise ValueError(f"tasks.{name}.engine_cache: {', '.join(NEVER_CACHED)} are never cached")
            if name == "finish" and task.retries:
                raise ValueError("tasks.finish.retries: the engine does not retry an exit handler")
        for name in TASKS:
            task = self.task(name)
            if task.accelerators and not task.accelerator:
                raise ValueError(f"tasks: {name} has accelerators, but no accelerator (their resource name)")
            for request, limit in _SIZES:
                if _exceeds(least := getattr(task, request), most := getattr(task, limit)):
                    raise ValueError(f"tasks: {name} has a {request} of {least}, above its {limit} of {most}")
            if twice := sorted(task.secrets.keys() & task.config_maps.keys()):
                raise ValueError(f"tasks: {name} takes {twice[0]} from a secret and from a config map")
        return self

    def task(self, name: str) -> TaskConfig:
        """Return the settings of the task `name`, with those of its groups and the defaults.

        A default is adjusted to the preset: Kubernetes refuses a request above its limit, and a variable has
        only one source.
        """
        defaults, preset = _settings_of(DEFAULTS, name), _settings_of(self.tasks, name)
        secrets, maps = preset.get("secrets"), defaults["config_maps"]
        if isinstance(secrets, dict) and isinstance(maps, dict):
            defaults["config_maps"] = {key: source for key, source in maps.items() if key not in secrets}
        settings = _merged(defaults, preset)
        for request, limit in _SIZES:
            if _exceeds(settings.get(request), settings.get(limit)):
                settings |= {request: settings[limit]} if request not in preset else {}
                settings |= {limit: settings[request]} if limit not in preset else {}
        if name == "finish":
            settings["retries"] = 0
        return TaskConfig.model_validate(settings)


_SIZES = (("cpu_request", "cpu_limit"), ("memory_request", "memory_limit"))
_POWERS = {unit: power for power, unit in enumerate("KMGTPE", 1)}


def _settings_of(tasks: Mapping[str, TaskConfig], name: str) -> dict[str, object]:
    """Merge the entries of a task's groups and its own entry, the narrower over the wider."""
    settings: dict[str, object] = {}
    for group in [*(group for group in GROUPS if name in GROUPS[group]), name]:
        if group in tasks:
            fields = tasks[group].model_fields_set
            settings = _merged(settings, {field: getattr(tasks[group], field) for field in fields})
    return settings


def _merged(wide: Mapping[str, object], narrow: Mapping[str, object]) -> dict[str, object]:
    merged = dict(wide)
    for field, value in narrow.items():
        before = wide.get(field)
        merged[field] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _exceeds(request: object, limit: object) -> bool:
    return isinstance(request, str) and isinstance(limit, str) and amount(request) > amount(limit)


def amount(quantity: str) -> float:
    """Return `500m`, `2`, `4G`, `16Gi` as a number (cores, bytes)."""
    number = quantity.rstrip("mKMGTPEi")
    unit = quantity[len(number) :]
    if unit == "m":
        return float(number) / 1000
    base = 1024.0 if unit.endswith("i") else 1000.0
    return float(number) * float(base ** _POWERS.get(unit[:1], 0))

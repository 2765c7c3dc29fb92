"""The section `train_job`: training on several nodes, through Kubeflow Trainer.

A run on this machine ignores it. It decides where the training steps work, not what they make: it is part of
no step's key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from embedline.config.base import Section

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+([.][0-9]+)?(m|[EPTGMk]|[EPTGMK]i)?$")]


class SecretKey(Section):
    """One key of a Kubernetes secret: never the value itself."""

    name: Label
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$")

    @model_validator(mode="before")
    @classmethod
    def _no_value(cls, given: object) -> object:
        """Refused without being repeated: what stands there may be the secret."""
        if isinstance(given, dict | SecretKey):
            return given
        raise ValueError("takes {name: …, key: …} of a secret, never the value itself")


class TrainJobConfig(Section):
    """With more than one node, each training step becomes a TrainJob that the pipeline's task waits for."""

    nodes: int = Field(1, ge=1, description="1: the task itself trains, with runtime.processes")
    processes_per_node: int = Field(1, ge=1, description="one for each GPU of a node")
    runtime: Label = Field("embedline-torch", description="name of the training runtime in the cluster")
    runtime_kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = Field(
        "TrainingRuntime", description="of this namespace, or of the whole cluster (torch-distributed)"
    )
    namespace: Label | None = Field(None, description="of the job; the task's own when empty")
    image: str | None = Field(None, description="of the job's pods; the components' own when empty")
    resources: dict[str, Quantity] = Field(
        {}, description="of each node, requested and at most: cpu, memory, nvidia.com/gpu"
    )
    claim: Label | None = Field(
        "embedline-workspace",
        description="volume claim of the workspace, which all nodes must be able to mount; when empty, the "
        "runtime mounts it",
    )
    secrets: dict[Variable, SecretKey] = Field({}, description="environment variable → key of a secret")
    timeout_s: int | None = Field(None, ge=1, description="seconds after which the job is ended")

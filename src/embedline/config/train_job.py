"""The section `train_job`: training on several nodes, through Kubeflow Trainer.

A run on this machine ignores it. It decides where the training steps work, not what they make: it is part of
no step's key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from embedline.config.base import Section
from embedline.config.cluster import KeyOf, Name, Number, Variable

Quantity = Annotated[str, Number, StringConstraints(pattern=r"^[0-9]+([.][0-9]+)?(m|[EPTGMk]|[EPTGMK]i)?$")]


class TrainJobConfig(Section):
    """With more than one node, each training step becomes a TrainJob that the pipeline's task waits for."""

    nodes: int = Field(1, ge=1, description="1: the task itself trains, with runtime.processes")
    processes_per_node: int = Field(1, ge=1, description="one for each GPU of a node")
    runtime: Name = Field("embedline-torch", description="name of the training runtime in the cluster")
    runtime_kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = Field(
        "TrainingRuntime", description="of this namespace, or of the whole cluster (torch-distributed)"
    )
    namespace: Name | None = Field(None, description="of the job; the task's own when empty")
    image: str | None = Field(
        None,
        description="of the job's pods; the components' own when empty, the GPU one where GPUs are asked for",
    )
    resources: dict[str, Quantity] = Field(
        {}, description="of each node, requested and at most: cpu, memory, nvidia.com/gpu"
    )
    claim: Name | None = Field(
        "embedline-workspace",
        description="volume claim of the workspace, which all nodes must be able to mount; when empty, the "
        "runtime mounts it",
    )
    secrets: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a secret")
    timeout_s: int | None = Field(None, ge=1, description="seconds after which the job is ended")

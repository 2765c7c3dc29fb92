"""Section `train_job`: training on several nodes, through Kubeflow Trainer.

A run on this machine ignores it. It decides where the training steps run and not what they compute, so it is
part of no step's key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from embedline.config.base import Section
from embedline.config.cluster import KeyOf, Name, Number, Variable

Quantity = Annotated[str, Number, StringConstraints(pattern=r"^[0-9]+([.][0-9]+)?(m|[EPTGMk]|[EPTGMK]i)?$")]


class TrainJobConfig(Section):
    """With more than one node, each training step becomes a TrainJob that the pipeline's task waits for."""

    nodes: int = Field(
        1, ge=1, description="number of nodes; with 1 the task itself trains, with runtime.processes"
    )
    processes_per_node: int = Field(1, ge=1, description="processes on each node, one for each GPU")
    runtime: Name = Field("embedline-torch", description="name of the training runtime in the cluster")
    runtime_kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = Field(
        "TrainingRuntime",
        description="kind of the runtime: of the namespace, or of the whole cluster (torch-distributed)",
    )
    namespace: Name | None = Field(None, description="namespace of the job; the task's own when empty")
    image: str | None = Field(
        None,
        description="image of the job's pods; when empty the components' image, with GPUs the GPU image",
    )
    resources: dict[str, Quantity] = Field(
        {}, description="resources of each node, as request and limit: cpu, memory, nvidia.com/gpu"
    )
    claim: Name | None = Field(
        "embedline-workspace",
        description="volume claim of the workspace, which all nodes must be able to mount; when empty, the "
        "runtime mounts the workspace",
    )
    secrets: dict[Variable, KeyOf] = Field({}, description="environment variable → key of a secret")
    timeout_s: int | None = Field(None, ge=1, description="seconds after which the job is stopped")

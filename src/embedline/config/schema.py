"""The whole run in one object: `RunConfig`."""

from __future__ import annotations

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.cluster import ClusterConfig
from embedline.config.data import SYMMETRIC, CleanConfig, DataConfig
from embedline.config.evaluation import EvaluateConfig
from embedline.config.export import ExportConfig
from embedline.config.gate import GateConfig
from embedline.config.model import ModelConfig, Prompt, PruneConfig, TeacherConfig
from embedline.config.refusals import refused
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.config.train_job import TrainJobConfig
from embedline.config.training import ContrastiveConfig, MineConfig, PretrainConfig, RuntimeConfig


class RunConfig(Section):
    """A preset is the whole run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="of the run and of the registered model")
    description: str = Field("", description="one line for people, shown in reports")
    seed: int = Field(0, ge=0, lt=2**32, description="of everything that is drawn at random")
    data: DataConfig
    clean: CleanConfig = CleanConfig()
    model: ModelConfig = ModelConfig()
    prompts: dict[str, Prompt] = Field(
        {},
        description="by task or source name, then by task type; `default` for the rest. Both sides of sts, "
        "bitext, classification and clustering get `query`",
    )
    teacher: TeacherConfig | None = None
    prune: PruneConfig = PruneConfig()
    pretrain: PretrainConfig = PretrainConfig()
    unsupervised: ContrastiveConfig = ContrastiveConfig()
    mine: MineConfig = MineConfig()
    supervised: ContrastiveConfig = ContrastiveConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    promote: PromoteConfig = PromoteConfig()
    tracking: TrackingConfig = TrackingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    cluster: ClusterConfig = ClusterConfig()
    train_job: TrainJobConfig = TrainJobConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> RunConfig:
        problems = list(refused(self))
        if problems:
            raise ValueError("; ".join(problems))
        for name, prompt in self.prompts.items():
            if name in {"query", "document"}:
                raise ValueError(f"prompts.{name}: is a side; write default: {{{name}: …}}")
            if name in SYMMETRIC and prompt.document not in {"", prompt.query}:
                raise ValueError(f"prompts.{name}.document: both sides of a symmetric task get `query`")
        return self

"""All sections of a run in one object, before it is checked which settings go together."""

from __future__ import annotations

from pydantic import Field

from embedline.config.base import Section
from embedline.config.cluster import ClusterConfig
from embedline.config.data import CleanConfig, DataConfig
from embedline.config.evaluation import EvaluateConfig
from embedline.config.export import ExportConfig
from embedline.config.fusion import FusionConfig
from embedline.config.gate import GateConfig
from embedline.config.model import ModelConfig, Prompt, PruneConfig, TeacherConfig
from embedline.config.names import MAX_PRESET_NAME
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.config.train_job import TrainJobConfig
from embedline.config.training import ContrastiveConfig, MineConfig, PretrainConfig, RuntimeConfig


class RunSections(Section):
    """The sections of a run; `RunConfig` is the same with its parts checked against each other."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        max_length=MAX_PRESET_NAME,
        description="name of the preset, its runs and, unless promote.model is set, the registered model",
    )
    description: str = Field("", description="one line shown in reports")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random choices: weights, order, samples")
    data: DataConfig
    clean: CleanConfig = CleanConfig()
    model: ModelConfig = ModelConfig()
    prompts: dict[str, Prompt] | None = Field(
        None,
        description="prompts by task or source name, then by task type; `default` for all other texts. Both "
        "sides of sts, bitext, classification and clustering get the query's prompt. When empty, those of "
        "the base's own folder; {} for none",
    )
    teacher: TeacherConfig | None = None
    prune: PruneConfig = PruneConfig()
    pretrain: PretrainConfig = PretrainConfig()
    unsupervised: ContrastiveConfig = ContrastiveConfig()
    mine: MineConfig = MineConfig()
    supervised: ContrastiveConfig = ContrastiveConfig()
    fusion: FusionConfig | None = None
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    promote: PromoteConfig = PromoteConfig()
    tracking: TrackingConfig = TrackingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    cluster: ClusterConfig = ClusterConfig()
    train_job: TrainJobConfig = TrainJobConfig()

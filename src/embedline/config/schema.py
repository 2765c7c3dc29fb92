"""The whole run in one object: `RunConfig`."""

from __future__ import annotations

from pydantic import Field, model_validator

from embedline.config.base import Section
from embedline.config.data import CleanConfig, DataConfig
from embedline.config.model import ModelConfig, Prompt, PruneConfig, TeacherConfig
from embedline.config.outcome import EvaluateConfig, ExportConfig, GateConfig, PromoteConfig, TrackingConfig
from embedline.config.training import ContrastiveConfig, MineConfig, PretrainConfig, RuntimeConfig


class RunConfig(Section):
    """A preset is the whole run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="of the run and of the registered model")
    description: str = ""
    seed: int = 0
    data: DataConfig
    clean: CleanConfig = CleanConfig()
    model: ModelConfig = ModelConfig()
    prompts: dict[str, Prompt] = Field(
        {}, description="by task or source name, then by task type; `default` for the rest"
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

    @model_validator(mode="after")
    def _parts_fit(self) -> RunConfig:
        if self.model.base is None and self.prune.when == "before":
            raise ValueError(
                "prune.when: before needs model.base; a model from scratch has no layers to drop"
            )
        width = self.model.settings.get("hidden_size")
        for dim in self.model.dims:
            if width is not None and dim > width:
                raise ValueError(f"model.dims: {dim} is larger than the model's width {width}")
        for stage in ("unsupervised", "supervised"):
            config: ContrastiveConfig = getattr(self, stage)
            if not config.in_batch_negatives and config.negatives == 0:
                raise ValueError(f"{stage}: in_batch_negatives: false needs negatives: 1 or more")
            if config.symmetric and not config.in_batch_negatives:
                raise ValueError(f"{stage}: symmetric: true needs in_batch_negatives: true")
            if config.matryoshka_weights and len(config.matryoshka_weights) != len(self.model.dims):
                raise ValueError(f"{stage}.matryoshka_weights: one weight for each of model.dims")
        if not self.evaluate.score_base and any(rule.against == "base" for rule in self.gate.rules):
            raise ValueError("gate.rules: a rule against the base needs evaluate.score_base: true")
        return self

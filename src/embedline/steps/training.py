"""What the training steps share: the model that comes in, the records of a stage, the model that goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedline.config.data import Source
from embedline.config.model import ModelConfig, Prompt
from embedline.models.prompts import PromptTable
from embedline.steps.base import Context, StepResult

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder, EmbedderSpec
    from embedline.training.records import SourceRecords


def wanted_spec(context: Context) -> EmbedderSpec:
    """Pooling, lengths, dims and prompts as the run's config asks for."""
    from embedline.models.folder import spec_from_config

    prompts = context.slice.section("prompts", dict[str, Prompt])
    return spec_from_config(context.slice.section("model", ModelConfig), PromptTable(prompts))


def load_model(context: Context) -> Embedder:
    """The model that the step was handed."""
    from embedline.models.folder import load_embedder

    return load_embedder(context.artifact("model").path)


def stage_sources(context: Context, stage: str) -> dict[str, Source]:
    """The sources that a stage uses, by name."""
    from embedline.data.sources import source_name

    sources = context.slice.section("data.sources", list[Source])
    return {source_name(s.name, s.path): s for s in sources if stage in s.stages}


def stage_records(context: Context, stage: str, artifact: str) -> dict[str, SourceRecords]:
    from embedline.training.records import read_records

    path = context.artifact(artifact).path / "records.parquet"
    return read_records(path, stage_sources(context, stage))


def keep_model(context: Context, embedder: Embedder, **lineage: Any) -> None:
    """Write the step's output `model`; its lineage says what each step before did to it."""
    from embedline.models.folder import read_lineage, save_embedder

    before = context.inputs.get("model")
    history = read_lineage(before.path) if before else []
    save_embedder(embedder, context.output("model"), lineage=[*history, {"step": context.step, **lineage}])


def handed_on(context: Context) -> StepResult:
    """A stage that is switched off hands its model on by reference."""
    return StepResult(handed_on={"model": context.inputs["model"]}, summary=f"`{context.step}` is off.")

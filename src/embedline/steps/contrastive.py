"""What stages two and three share: contrastive training on the records of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedline.artifacts.markdown import cell
from embedline.config.model import TeacherConfig
from embedline.config.training import ContrastiveConfig, RuntimeConfig
from embedline.steps.base import Context, StepResult
from embedline.steps.training import (
    adapters,
    handed_on,
    keep_model,
    load_model,
    load_teacher,
    naming,
    stage_records,
    stage_sources,
)

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.training.teaching import Teaching

_OBJECTIVES = {"infonce": "InfoNCE", "unified": "dense, lexical and multi-vector InfoNCE"}


def train_stage(context: Context, stage: str, records: str) -> StepResult:
    """Train on the records of the input artefact `records`, with the config section `stage`."""
    config = context.slice.section(stage, ContrastiveConfig)
    if not config.enabled:
        return handed_on(context)

    from embedline.models.checks import require_tokens
    from embedline.steps.machine import prepare
    from embedline.training.contrastive import train_contrastive

    bf16 = prepare(context.slice.section("runtime", RuntimeConfig), training=True)
    embedder = load_model(context)
    require_tokens(embedder, config.document_length, f"{stage}.document_length")
    sources = stage_records(context, stage, records)
    weights = {name: source.weight for name, source in stage_sources(context, stage).items()}
    context.tracker.params(config.model_dump())
    with naming(stage), adapters(context, embedder):
        drawn = train_contrastive(
            embedder,
            sources,
            config,
            weights=weights,
            seed=context.slice.config["seed"],
            bf16=bf16,
            checkpoints=context.checkpoints,
            evidence=context.evidence,
            on_metrics=context.tracker.metrics,
            teaching=teaching(context, embedder, config, bf16=bf16),
        )
    shares = {name: group.share for name, group in drawn.items()}
    context.tracker.params({f"share.{name}": f"{share:.3f}" for name, share in shares.items()})
    keep_model(context, embedder, steps=config.steps, objective=_OBJECTIVES[config.objective], shares=shares)
    rows = "\n".join(
        f"| {cell(name)} | {group.records:,} | {group.share:.1%} |" for name, group in drawn.items()
    )
    alone = sum(group.records == 1 for group in drawn.values())
    left = f"\n\n{alone} records, each alone in its task type, language and length, were not drawn."
    pairs = "pairs by length" if config.buckets else f"{config.batch} pairs"
    return StepResult(
        metrics={
            "records": float(sum(len(source.rows) for source in sources.values())),
            "records_alone": float(alone),
        },
        summary=f"{config.steps} steps of {pairs}.\n\n"
        f"| source | records | share of batches |\n|---|---|---|\n{rows}{left if alone else ''}",
    )


def teaching(
    context: Context, embedder: Embedder, config: ContrastiveConfig, *, bf16: bool
) -> Teaching | None:
    """The run's teacher, on the machine where the model is trained; None where the stage asks for none."""
    if config.distillation is None or config.distillation.of == "rows":
        return None
    from embedline.training.teaching import Teaching

    about = context.slice.section("teacher", TeacherConfig)
    return Teaching(
        load_teacher(context), about.languages, config.distillation, width=embedder.width, bf16=bf16
    )

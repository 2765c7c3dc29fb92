"""What stages two and three share: contrastive training on the records of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedline.config.model import TeacherConfig
from embedline.config.training import ContrastiveConfig, RuntimeConfig
from embedline.markdown import table
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.training import (
    adapters,
    keep_model,
    load_model,
    load_teacher,
    naming,
    passed_through,
    stage_sources,
    streamed_records,
)

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.training.batching.mixture import Mix
    from embedline.training.contrastive.teacher import Teaching

_OBJECTIVES = {"infonce": "InfoNCE", "unified": "dense, lexical and multi-vector InfoNCE"}


def train_stage(context: Context, stage: str, records: str) -> StepResult:
    """Train on the records of the input artefact `records`, with the config section `stage`."""
    config = context.step_config.section(stage, ContrastiveConfig)
    if not config.enabled:
        return passed_through(context)

    from embedline.models.lengths import require_tokens
    from embedline.models.machine import prepare
    from embedline.training.contrastive.training import train_contrastive
    from embedline.training.engine import processes

    bf16 = prepare(context.step_config.section("runtime", RuntimeConfig), training=True)
    embedder = load_model(context)
    require_tokens(embedder, config.document_length, f"{stage}.document_length")
    weights = {name: source.weight for name, source in stage_sources(context, stage).items()}
    context.tracker.params(config.model_dump())
    with naming(stage), adapters(context, embedder):
        mix = train_contrastive(
            embedder,
            streamed_records(context, stage, records),
            config,
            weights=weights,
            seed=context.step_config.config["seed"],
            bf16=bf16,
            checkpoints=context.checkpoints,
            evidence=context.evidence,
            on_metrics=context.tracker.metrics,
            teaching=teaching(context, embedder, config, bf16=bf16),
        )
    shares = {name: share.drawn for name, (_, share) in mix.groups.items()}
    context.tracker.params({f"share.{name}": f"{share:.3f}" for name, share in shares.items()})
    context.tracker.metrics(mix.metrics(), config.steps)
    if processes.is_first():
        print(mix.words(), flush=True)  # noqa: T201
    keep_model(context, embedder, steps=config.steps, objective=_OBJECTIVES[config.objective], shares=shares)
    alone = sum(count == 1 for count, _ in mix.groups.values())
    left = f"\n\n{alone} records, each alone in its task type, language and length, were not drawn."
    pairs = "pairs by length" if config.buckets else f"{config.batch} pairs"
    return StepResult(
        metrics={
            "records": float(mix.records),
            "records_alone": float(alone),
            "share_error": mix.error,
        },
        summary=f"{config.steps} steps of {pairs}.\n\n{_shares_table(mix)}{left if alone else ''}",
    )


def _shares_table(mix: Mix) -> str:
    """Shares of the batches, as drawn and as asked for: of what they are drawn from, and by task type."""
    drawn = [
        [name, f"{count:,}", f"{share.drawn:.1%}", f"{share.asked:.1%}"]
        for name, (count, share) in mix.groups.items()
    ]
    kinds = [[name, f"{share.drawn:.1%}", f"{share.asked:.1%}"] for name, share in mix.task_types.items()]
    return (
        table(["source", "records", "share of batches", "asked for"], drawn)
        + "\n\n"
        + table(["task type", "share of batches", "asked for"], kinds)
    )


def teaching(
    context: Context, embedder: Embedder, config: ContrastiveConfig, *, bf16: bool
) -> Teaching | None:
    """The run's teacher, on the machine where the model is trained; None where the stage asks for none."""
    if config.distillation is None or config.distillation.of == "rows":
        return None
    from embedline.training.contrastive.teacher import Teaching

    about = context.step_config.section("teacher", TeacherConfig)
    return Teaching(
        load_teacher(context), about.languages, config.distillation, width=embedder.width, bf16=bf16
    )

"""Contrastive training on the records of a stage: stages two and three."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING

from embedline.config.model import TeacherConfig
from embedline.config.training import ContrastiveConfig, RuntimeConfig
from embedline.markdown import table
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.training import (
    adapters,
    encodes_in_bf16,
    errors_in_section,
    load_model,
    load_teacher,
    machine_params,
    passed_through,
    save_model,
    stage_sources,
    streamed_records,
    trains_in_bf16,
)

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.training.batching.mixture import Mixture
    from embedline.training.contrastive.teacher import Teacher

_log = logging.getLogger(__name__)

_OBJECTIVES = {"infonce": "InfoNCE", "unified": "dense, lexical and multi-vector InfoNCE"}


def train_stage(context: Context, *, section: str, records: str) -> StepResult:
    """Train on the records of the input artefact `records`, with the config section `section`."""
    config = context.step_config.section(section, ContrastiveConfig)
    if not config.enabled:
        return passed_through(context)

    from embedline.models.lengths import require_tokens
    from embedline.training.contrastive.training import train_contrastive
    from embedline.training.engine import processes

    prepare(context.step_config.section("runtime", RuntimeConfig), training=True)
    embedder = load_model(context)
    length = config.document_length or embedder.spec.document_length
    bf16 = trains_in_bf16(context, embedder, tokens=config.batch_tokens, length=length)
    require_tokens(embedder, config.document_length, f"{section}.document_length")
    weights = {name: source.weight for name, source in stage_sources(context, section).items()}
    context.tracker.params({**config.model_dump(), **machine_params(embedder, bf16=bf16)})
    with errors_in_section(section), nullcontext() if config.freeze_encoder else adapters(context, embedder):
        mixture = train_contrastive(
            embedder,
            streamed_records(context, section, records),
            config,
            weights=weights,
            seed=context.step_config.config["seed"],
            bf16=bf16,
            checkpoints=context.checkpoints,
            bad_batches=context.bad_batches,
            on_metrics=context.tracker.metrics,
            teacher=_stage_teacher(context, embedder, config),
            pretrained=_trained_before(context),
        )
    shares = {name: share.drawn for name, (_, share) in mixture.groups.items()}
    context.tracker.params({f"share.{name}": f"{share:.3f}" for name, share in shares.items()})
    context.tracker.metrics(mixture.metrics(), config.steps)
    if processes.is_first():
        _log.info(mixture.summary())
    save_model(context, embedder, steps=config.steps, objective=_OBJECTIVES[config.objective], shares=shares)
    alone = sum(count == 1 for count, _ in mixture.groups.values())
    note = f"\n\n{alone} records were not drawn: each is the only one of its task type, language and length."
    pairs = "pairs by length" if config.buckets else f"{config.batch} pairs"
    return StepResult(
        metrics={
            "records": float(mixture.records),
            "records_alone": float(alone),
            "share_error": mixture.error,
        },
        summary=f"{config.steps} steps of {pairs}.\n\n{_shares_table(mixture)}{note if alone else ''}",
    )


def _trained_before(context: Context) -> bool:
    """Return whether the input model comes from a base, or has had a contrastive stage."""
    from embedline.models.folder import read_lineage

    history = read_lineage(context.artifact("model").path)
    return any(entry.get("base") or str(entry.get("step")).startswith("train_") for entry in history)


def _shares_table(mixture: Mixture) -> str:
    """Tabulate the shares of the batches, drawn and requested: by source, and by task type."""
    by_source = [
        [name, f"{count:,}", f"{share.drawn:.1%}", f"{share.requested:.1%}"]
        for name, (count, share) in mixture.groups.items()
    ]
    by_task = [
        [name, f"{share.drawn:.1%}", f"{share.requested:.1%}"] for name, share in mixture.task_types.items()
    ]
    return (
        table(["source", "records", "share of batches", "requested"], by_source)
        + "\n\n"
        + table(["task type", "share of batches", "requested"], by_task)
    )


def _stage_teacher(context: Context, embedder: Embedder, config: ContrastiveConfig) -> Teacher | None:
    """Load the run's teacher onto the device of the training; None where the stage does not use it."""
    if config.distillation is None or config.distillation.of == "rows":
        return None
    from embedline.training.contrastive.teacher import Teacher

    settings = context.step_config.section("teacher", TeacherConfig)
    teacher = load_teacher(context)
    bf16 = encodes_in_bf16(context, teacher)
    made_by = [context.step_config.pins.get("teacher"), settings.pooling, settings.causal, bf16]
    digest = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:32]
    return Teacher(
        teacher,
        settings.languages,
        config.distillation,
        width=embedder.width,
        folder=context.workspace.teacher_vectors(digest),
        bf16=bf16,
        seed=context.step_config.config["seed"],
    )

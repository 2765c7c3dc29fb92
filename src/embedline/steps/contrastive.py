"""What stages two and three share: contrastive training on the records of a stage."""

from __future__ import annotations

from embedline.config.training import ContrastiveConfig, RuntimeConfig
from embedline.steps.base import Context, StepResult
from embedline.steps.training import (
    handed_on,
    keep_model,
    load_model,
    stage_records,
    stage_sources,
    wanted_spec,
)


def train_stage(context: Context, stage: str, records: str) -> StepResult:
    """Train on the records of the input artefact `records`, with the config section `stage`."""
    config = context.slice.section(stage, ContrastiveConfig)
    if not config.enabled:
        return handed_on(context)

    from embedline.steps.machine import prepare
    from embedline.training.contrastive import train_contrastive
    from embedline.training.records import pool_small

    bf16 = prepare(context.slice.section("runtime", RuntimeConfig))
    embedder = load_model(context).with_spec(wanted_spec(context))
    sources = stage_records(context, stage, records)
    weights = {name: source.weight for name, source in stage_sources(context, stage).items()}
    context.tracker.params(config.model_dump())
    shares = train_contrastive(
        embedder,
        sources,
        config,
        weights=weights,
        seed=context.slice.config["seed"],
        bf16=bf16,
        checkpoints=context.checkpoints,
        on_metrics=context.tracker.metrics,
    )
    context.tracker.params({f"share.{name}": f"{share:.3f}" for name, share in shares.items()})
    keep_model(context, embedder, steps=config.steps, objective="InfoNCE", shares=shares)
    pooled, _ = pool_small(sources, weights, config.batch)
    rows = "\n".join(
        f"| {name} | {len(pooled[name].rows):,} | {share:.1%} |" for name, share in shares.items()
    )
    return StepResult(
        metrics={"records": float(sum(len(source.rows) for source in sources.values()))},
        summary=f"{config.steps} steps of {config.batch} pairs.\n\n"
        f"| source | records | share of batches |\n|---|---|---|\n{rows}",
    )

"""Contrastive training: batches of records to vectors to their objective, through GradCache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.training.batching.batches import draw_batches
from embedline.training.batching.buckets import groups
from embedline.training.batching.mixture import Mix, mix_of
from embedline.training.batching.pairs import Batches, tokenised
from embedline.training.batching.records import Record
from embedline.training.batching.rows import Columns, apart
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.step import ContrastiveStep, Temperature
from embedline.training.contrastive.teacher import Teaching
from embedline.training.engine.progress import OnMetrics
from embedline.training.engine.step_timer import Watch
from embedline.training.engine.trainer import train


def train_contrastive(
    embedder: Embedder,
    records: Iterable[Record],
    config: ContrastiveConfig,
    *,
    weights: Mapping[str, float],
    seed: int,
    bf16: bool,
    checkpoints: Path,
    on_metrics: OnMetrics,
    teaching: Teaching | None = None,
    evidence: Path | None = None,
) -> Mix:
    """Train `embedder` in place on pairs, triplets or scored pairs; returns what the batches were made of.

    The batch with the most tokens and the one with the longest text come first, so that a machine that is
    too small for them is found out at once.

    Args:
        records: read once, from beginning to end, into `checkpoints`, unless they are there already.
        weights: multiply the shares of sources; 1 where a source is not named.
        evidence: as in `engine.train`.
        teaching: what a teacher says about a batch is learnt beside its labels.

    Raises:
        InputError: no records, a task type without a share, no group as large as its batch, or a batch that
            would hold no negative.
    """
    store = tokenised(embedder, records, config, checkpoints / "tokens")
    columns = store.columns()
    parts = apart(
        columns,
        weights,
        # A row without a negative of its own teaches nothing where others' documents do not count.
        lambda kind: config.in_batch_negatives or kind.negatives or kind.scored,
        by_task=bool(config.task_shares),
    )
    if not parts:
        raise InputError(
            "no records are left for this stage.",
            where="data.sources",
            fix="Check its stages; with in_batch_negatives: false, check that records have negatives.",
        )
    if config.distillation and config.distillation.of == "rows":
        require_told(columns)
    drawn_from = groups(parts, config, columns.longest)
    draws = draw_batches(
        {name: len(group.source) for name, group in drawn_from.items()},
        {name: group.share for name, group in drawn_from.items()},
        batch={name: group.batch for name, group in drawn_from.items()} if config.buckets else config.batch,
        steps=config.steps,
        seed=seed,
        within={name: (group.source.kind.task_type, group.source.name) for name, group in drawn_from.items()},
    )
    watch = Watch(embedder, bf16=bf16)
    mix = mix_of(draws, drawn_from, columns)
    del columns
    cache = GradCache(
        embedder,
        batch_tokens=config.batch_tokens,
        resident_tokens=None if config.resident_tokens == "auto" else config.resident_tokens,
        bf16=bf16,
        watch=watch,
    )
    temperature = (
        Temperature(config.temperature).to(embedder.device) if config.learnable_temperature else None
    )
    train(
        embedder
        if temperature is None
        else nn.ModuleDict({"embedder": embedder, "temperature": temperature}),
        Batches(
            store,
            {name: group.source for name, group in drawn_from.items()},
            draws.led_by(mix.heaviest),
        ),
        ContrastiveStep(cache, config, temperature, teaching),
        config,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
        budget=cache.budget,
        watch=watch,
        evidence=evidence,
    )
    return mix


def require_told(columns: Columns) -> None:
    """Refuse records none of which brings a teacher's scores.

    Raises:
        InputError: there is nothing to learn.
    """
    if not any(kind.told for kind in columns.kinds):
        raise InputError(
            "no record has both pos_scores and neg_scores, which distillation of rows learns.",
            where="data.sources",
            fix="Name the columns under `columns`, or leave the stage's distillation out.",
        )

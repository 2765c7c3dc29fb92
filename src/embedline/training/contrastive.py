"""Contrastive training: batches of records to vectors to their objective, through GradCache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.training.batches import draw_batches
from embedline.training.buckets import groups
from embedline.training.contrastive_step import ContrastiveStep, Temperature
from embedline.training.engine import train
from embedline.training.gradcache import GradCache
from embedline.training.pairs import Batches, longest_texts
from embedline.training.progress import OnMetrics
from embedline.training.records import SourceRecords, apart, only
from embedline.training.teaching import Teaching
from embedline.training.watch import Watch


class Drawn(NamedTuple):
    """What a group of records gave to a training: its rows, and its share of the batches."""

    records: int
    share: float


def train_contrastive(
    embedder: Embedder,
    sources: Mapping[str, SourceRecords],
    config: ContrastiveConfig,
    *,
    weights: Mapping[str, float],
    seed: int,
    bf16: bool,
    checkpoints: Path,
    on_metrics: OnMetrics,
    teaching: Teaching | None = None,
    evidence: Path | None = None,
) -> dict[str, Drawn]:
    """Train `embedder` in place on pairs, triplets or scored pairs; returns what each group gave.

    Args:
        evidence: as in `engine.train`.
        teaching: what a teacher says about a batch is learnt beside its labels.

    Raises:
        InputError: no records, no group as large as its batch, or a batch that would hold no negative.
    """
    parts, origin = apart(sources)
    if not config.in_batch_negatives:  # a row without a negative of its own teaches nothing
        parts = {
            name: only(part, lambda row: bool(row.negatives) or row.score is not None)
            for name, part in parts.items()
        }
        parts = {name: part for name, part in parts.items() if part.rows}
    if not parts:
        raise InputError(
            "no records are left for this stage.",
            where="data.sources",
            fix="Check its stages; with in_batch_negatives: false, check that records have negatives.",
        )
    if config.distillation and config.distillation.of == "rows":
        require_told(parts.values())
    drawn_from = groups(
        parts,
        {name: weights.get(origin[name], 1.0) for name in parts},
        config,
        lambda source: longest_texts(embedder, source, config),
    )
    draws = draw_batches(
        {name: len(group.source.rows) for name, group in drawn_from.items()},
        {name: group.share for name, group in drawn_from.items()},
        batch={name: group.batch for name, group in drawn_from.items()} if config.buckets else config.batch,
        steps=config.steps,
        seed=seed,
    )
    watch = Watch(embedder, bf16=bf16)
    cache = GradCache(
        embedder,
        batch_tokens=config.batch_tokens,
        resident_tokens=config.resident_tokens,
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
        Batches(embedder, {name: group.source for name, group in drawn_from.items()}, draws, config),
        ContrastiveStep(cache, config, temperature, teaching),
        config,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
        budget=cache.budget,
        watch=watch,
        evidence=evidence,
    )
    return {
        name: Drawn(len(group.source.rows), sum(draw.source == name for draw in draws) / len(draws))
        for name, group in drawn_from.items()
    }


def require_told(sources: Iterable[SourceRecords]) -> None:
    """Refuse records none of which brings a teacher's scores.

    Raises:
        InputError: there is nothing to learn.
    """
    if not any(row.positive_scores and row.negative_scores for source in sources for row in source.rows):
        raise InputError(
            "no record has both pos_scores and neg_scores, which distillation of rows learns.",
            where="data.sources",
            fix="Name the columns under `columns`, or leave the stage's distillation out.",
        )

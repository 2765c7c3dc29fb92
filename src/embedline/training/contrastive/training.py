"""Contrastive training: from records to batches to the objective, through GradCache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from torch import nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.head_start import needs_start, start_heads
from embedline.training.batching.batches import draw_batches
from embedline.training.batching.buckets import groups
from embedline.training.batching.mixture import Mixture, mixture_of
from embedline.training.batching.pairs import ContrastiveBatches, tokenised
from embedline.training.batching.records import Record
from embedline.training.batching.rows import Columns, split_by_source
from embedline.training.batching.tokens import TokenStore
from embedline.training.contrastive.base_watch import BaseWatch
from embedline.training.contrastive.frozen_encoder import frozen_encoder
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.step import ContrastiveStep, Temperature
from embedline.training.contrastive.teacher import TaughtRow, Teacher
from embedline.training.engine.progress import OnMetrics
from embedline.training.engine.step_timer import StepTimer
from embedline.training.engine.token_rows import token_rows
from embedline.training.engine.trainer import train

_SAMPLE = 4096  # records that new heads start from


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
    teacher: Teacher | None = None,
    bad_batches: Path | None = None,
    pretrained: bool = False,
) -> Mixture:
    """Train `embedder` in place on pairs, triplets or scored pairs.

    The batch with the most tokens and the one with the longest text come first, so that a lack of memory
    shows at once.

    Example:
        >>> config = ContrastiveConfig(steps=1000, batch=256)
        >>> train_contrastive(embedder, records, config, weights={}, seed=1, bf16=True,
        ...                   checkpoints=Path("checkpoints"), on_metrics=lambda metrics, step: None)

    Args:
        records: read once, from beginning to end, into `checkpoints`, unless they are there already.
        weights: multiply the shares of sources; 1 where a source is not named.
        checkpoints, on_metrics, bad_batches: as in `engine.trainer.train`.
        teacher: its scores or vectors are learnt beside the labels; the vectors of the batches' texts are
            computed before the first step.
        pretrained: the model can find texts already: a training that destroys this in its first steps is
            stopped.

    Returns:
        The composition of the batches.

    Raises:
        InputError: no records, a task type without a share, no group as large as its batch, or a batch that
            would hold no negative.
        StepError: the learning rate destroys a pretrained model; further ones as in `engine.trainer.train`.
    """
    store = tokenised(embedder, records, config, checkpoints / "tokens")
    columns = store.columns()
    parts = split_by_source(
        columns,
        weights,
        # Without in-batch negatives, a row without own negatives has no loss.
        lambda row_group: (
            not config.freeze_encoder  # CoSENT is of dense vectors
            if row_group.scored
            else config.in_batch_negatives or row_group.negatives
        ),
        by_task=bool(config.task_shares),
    )
    if not parts:
        raise _nothing_to_train_on(columns, config)
    if config.distillation and config.distillation.of == "rows":
        require_teacher_scores(columns)
    drawn_from = groups(parts, config, columns.longest)
    draws = draw_batches(
        {name: len(group.source) for name, group in drawn_from.items()},
        {name: group.share for name, group in drawn_from.items()},
        batch={name: group.batch for name, group in drawn_from.items()} if config.buckets else config.batch,
        steps=config.steps,
        seed=seed,
        within={
            name: (group.source.row_group.task_type, group.source.name) for name, group in drawn_from.items()
        },
    )
    if config.objective == "unified" and needs_start(embedder):
        start_heads(embedder, _sample(store, len(columns.row_group), seed), bf16=bf16)
    timer = StepTimer(embedder, bf16=bf16, operations=2 if config.freeze_encoder else 6)
    mixture = mixture_of(draws, drawn_from, columns)
    if teacher:
        drawn = np.zeros(len(columns.row_group), dtype=bool)
        for draw in draws:
            drawn[drawn_from[draw.source].source.numbers[draw.rows]] = True
        teacher.prepare(_taught(store, np.flatnonzero(drawn)), batch_tokens=config.batch_tokens)
    del columns
    cache = GradCache(
        embedder,
        batch_tokens=config.batch_tokens,
        resident_tokens=None if config.resident_tokens == "auto" else config.resident_tokens,
        bf16=bf16,
        timer=timer,
    )
    temperature = (
        Temperature(config.temperature).to(embedder.device) if config.learnable_temperature else None
    )
    batches = ContrastiveBatches(
        store, {name: group.source for name, group in drawn_from.items()}, draws.led_by(mixture.heaviest)
    )
    watch = None
    if pretrained and not config.freeze_encoder:
        watch = BaseWatch(
            embedder,
            batches,
            learning_rate=config.learning_rate,
            temperature=config.temperature,
            batch_tokens=config.batch_tokens,
            bf16=bf16,
        )
    of_loss = {"temperature": temperature, "projection": teacher.projection if teacher else None}
    trained = {name: module for name, module in of_loss.items() if module is not None}
    with frozen_encoder(embedder) if config.freeze_encoder else nullcontext():
        train(
            nn.ModuleDict({"embedder": embedder, **trained}) if trained else embedder,
            batches,
            ContrastiveStep(cache, config, temperature, teacher),
            config,
            checkpoints=checkpoints,
            seed=seed,
            on_metrics=on_metrics,
            budget=cache.budget,
            timer=timer,
            bad_batches=bad_batches,
            rows=token_rows(embedder),
            before_step=watch,
        )
    return mixture


def _sample(store: TokenStore, count: int, seed: int) -> list[list[int]]:
    """Return the token ids of the queries and documents of some records, in random order."""
    random = np.random.default_rng(seed)
    numbers = random.permutation(count)[:_SAMPLE]
    texts = [ids for row in store.rows(numbers) for ids in (row.query_ids, *row.positive_ids[:1])]
    return [texts[i] for i in random.permutation(len(texts))]


def _taught(store: TokenStore, numbers: np.ndarray) -> Iterator[TaughtRow]:
    """Yield the rows of these numbers, some of which are in memory at a time."""
    for start in range(0, len(numbers), 1024):
        for row in store.rows(numbers[start : start + 1024]):
            group, documents = row.row_group, [*row.positives, *row.negatives]
            yield TaughtRow(group.source, group.task_type, group.language, row.query, documents)


def _nothing_to_train_on(columns: Columns, config: ContrastiveConfig) -> InputError:
    """Make the error for a stage without rows that have a loss, by its cause."""
    records = len(columns.row_group)
    if not records:
        return InputError(
            "no records are left for this stage.",
            where="data.sources",
            fix="Check the stages of the sources, and the counts of clean.",
        )
    if config.freeze_encoder and all(row_group.scored for row_group in columns.row_groups):
        return InputError(
            f"all {records:,} records have a score, which trains dense vectors alone.",
            where="training",
            fix="Leave freeze_encoder out, or give the stage a source of pairs.",
        )
    return InputError(
        f"none of {records:,} records has a negative; in_batch_negatives: false leaves no others.",
        where="training",
        fix="Give the records negatives; if mine found none for them, its summary gives the reason.",
    )


def require_teacher_scores(columns: Columns) -> None:
    """Check that a record has a teacher's scores of its documents.

    Raises:
        InputError: no record has any, so there is nothing to learn.
    """
    if not any(row_group.teacher_scores for row_group in columns.row_groups):
        raise InputError(
            "no record has both pos_scores and neg_scores, which distillation of rows learns.",
            where="data.sources",
            fix="Name the columns under `columns`, or leave the stage's distillation out.",
        )

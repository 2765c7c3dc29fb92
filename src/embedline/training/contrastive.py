"""Contrastive training: batches of records to vectors to InfoNCE, through GradCache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.training.batches import Draw, draw_batches, source_shares
from embedline.training.engine import OnMetrics, train
from embedline.training.gradcache import GradCache
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.records import SourceRecords, pool_small


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
) -> dict[str, float]:
    """Train `embedder` in place on pairs or triplets; returns the share of batches a source had.

    Raises:
        InputError: no records, no source as large as the batch, or a batch that would hold no negative.
    """
    if not config.in_batch_negatives:  # a row without a negative of its own teaches nothing
        sources = _with_negatives(sources)
    if not sources:
        raise InputError(
            "no records are left for this stage.",
            where="data.sources",
            fix="Check its stages; with in_batch_negatives: false, check that records have negatives.",
        )
    sources, weights = pool_small(sources, weights, config.batch)
    sizes = {name: len(source.rows) for name, source in sources.items()}
    shares = source_shares(sizes, weights, exponent=config.size_exponent, max_share=config.max_share)
    draws = draw_batches(sizes, shares, batch=config.batch, steps=config.steps, seed=seed)
    cache = GradCache(
        embedder,
        batch_tokens=config.batch_tokens,
        resident_tokens=config.resident_tokens,
        bf16=bf16,
    )
    step = ContrastiveStep(cache, config)
    train(
        embedder,
        _Batches(embedder, sources, draws, config),
        step,
        config,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
    )
    return {name: sum(draw.source == name for draw in draws) / len(draws) for name in sizes}


def _with_negatives(sources: Mapping[str, SourceRecords]) -> dict[str, SourceRecords]:
    kept = {name: [row for row in source.rows if row.negatives] for name, source in sources.items()}
    return {name: SourceRecords(name, rows) for name, rows in kept.items() if rows}


class _Batches(Sequence[Any]):
    """Batch i, tokenised when it is asked for."""

    def __init__(
        self,
        embedder: Embedder,
        sources: Mapping[str, SourceRecords],
        draws: list[Draw],
        config: ContrastiveConfig,
    ) -> None:
        self.embedder, self.sources, self.draws, self.config = embedder, sources, draws, config

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: Any) -> Any:
        draw = self.draws[index]
        source, spec = self.sources[draw.source], self.embedder.spec
        rows = [source.rows[i] for i in draw.rows]
        positives = [row.positives[draw.epoch % len(row.positives)] for row in rows]
        negatives = [row.negatives[: self.config.negatives] for row in rows]
        documents = [*positives, *(text for texts in negatives for text in texts)]
        owner = [*range(len(rows)), *(i for i, texts in enumerate(negatives) for _ in texts)]
        query_prompt = document_prompt = ""
        if self.config.prompts:
            query_prompt = spec.prompts.prompt("query", name=source.name, task_type=source.task_type)
            document_prompt = spec.prompts.prompt("document", name=source.name, task_type=source.task_type)
        longest = self.config.document_length or spec.document_length
        long_query = source.task_type.startswith("long")
        queries = self.embedder.tokenize(
            [row.query for row in rows],
            prompt=query_prompt,
            max_length=longest if long_query else spec.query_length,
        )
        return {
            "source": draw.source,
            "ids": queries + self.embedder.tokenize(documents, prompt=document_prompt, max_length=longest),
            "queries": len(rows),
            "owner": owner,
            "answers": [row.positives for row in rows],
            "texts": documents,
            "query_texts": [row.query for row in rows],
        }


class ContrastiveStep:
    """One optimizer step on one single-source batch."""

    def __init__(self, cache: GradCache, config: ContrastiveConfig) -> None:
        self.cache, self.config = cache, config
        self.dims: dict[int, float] = {}
        if config.matryoshka:
            self.dims = weighted_dims(cache.model.width, cache.model.spec.dims, config.matryoshka_weights)

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        count = batch["queries"]
        owner_M = torch.tensor(batch["owner"], device=self.cache.model.device)
        same_NM = known_answers(batch["query_texts"], batch["answers"], batch["texts"]).to(owner_M.device)

        if same_NM.all():
            raise InputError(
                f"a batch from {batch['source']} holds no negative: each document answers each query.",
                where="data.sources",
                fix="Leave the source out of this stage, or give it records that differ.",
            )

        def at_width(vectors: Tensor) -> Tensor:
            return info_nce(
                vectors[:count],
                vectors[count:],
                owner_M=owner_M,
                same_NM=same_NM,
                temperature=self.config.temperature,
                symmetric=self.config.symmetric,
                in_batch_negatives=self.config.in_batch_negatives,
                false_negative_margin=self.config.false_negative_margin,
            )

        def loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
            if not self.dims:
                return at_width(vectors), {}
            return matryoshka(at_width, vectors, list(self.dims), list(self.dims.values())), {}

        value, metrics = self.cache.step(batch["ids"], loss)
        return value, {**metrics, "tokens": float(sum(len(row) for row in batch["ids"]))}


def weighted_dims(width: int, dims: Sequence[int], weights: Sequence[float]) -> dict[int, float]:
    """Weight by dim of the Matryoshka loss: for `dims`, and for the full width, 1 where it is not named.

    Args:
        weights: one for each of `dims`; 1 each when empty.

    Raises:
        InputError: a dim larger than the width.
    """
    if dims and max(dims) > width:
        raise InputError(f"{max(dims)} is larger than the model's width {width}.", where="model.dims")
    return {width: 1.0, **dict(zip(dims, weights or [1.0] * len(dims), strict=True))}


def known_answers(queries: list[str], answers: list[list[str]], documents: list[str]) -> Tensor:
    """N × M: True where a document is a positive of the query in its row, or in another row of the batch."""
    by_query: dict[str, set[str]] = {}
    for query, texts in zip(queries, answers, strict=True):
        by_query.setdefault(query, set()).update(texts)
    columns: dict[str, list[int]] = {}
    for column, text in enumerate(documents):
        columns.setdefault(text, []).append(column)
    same = torch.zeros(len(queries), len(documents), dtype=torch.bool)
    for row, query in enumerate(queries):
        for text in by_query[query]:
            same[row, columns.get(text, [])] = True
    return same

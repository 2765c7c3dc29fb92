"""Needle in a long document: whether a model finds a fact after a given number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedline.artifacts.scores import ScoreRow
from embedline.evaluation.bootstrap import interval_of_mean
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.haystack import GENERATOR, haystacks, set_name

METRIC, REMOVED = "recall@1", "recall@1_needle_removed"


def needle_recall(
    model: EvaluatedModel,
    depths: Sequence[int],
    *,
    documents: int = 32,
    seed: int = 0,
    resamples: int = 1000,
) -> list[ScoreRow]:
    """Score recall@1 of each question among the documents, with their facts and without; two rows a depth.

    Documents differ in their filler and in their fact, which starts after `depth` tokens and is followed by
    filler. Without facts there is nothing to find: that recall must be near 1 / `documents`, else something
    other than the fact identifies a document. Only the dense head is scored, at full width.

    Args:
        model: its encoder has `count_tokens`, because depths are in the model's own tokens.
        documents: documents of one depth.
    """
    rows = []
    encoder: Any = model.encoder
    for depth in depths:
        stacks = haystacks(documents, depth, encoder.count_tokens, seed=seed)
        prompt = model.prompts.prompt("query"), model.prompts.prompt("document")
        queries = model.vectors([s.query for s in stacks], prompt[0], model.query_length)
        row = model.row(
            set_name(depth),
            "needle",
            "en-ru",
            revision=f"{GENERATOR} seed {seed}",
            prompt=" / ".join(map(repr, prompt)) if any(prompt) else "",
            dim=queries.shape[1],
        )
        for metric, texts in ((METRIC, [s.document for s in stacks]), (REMOVED, [s.without for s in stacks])):
            vectors = model.vectors(texts, prompt[1], model.document_length)
            hits = ((queries @ vectors.T).argmax(1) == np.arange(documents)).astype(np.float64)
            interval = interval_of_mean(hits, resamples)
            rows.append(
                row.scored(metric, hits.mean(), main=metric == METRIC, interval=interval, count=documents)
            )
    return rows

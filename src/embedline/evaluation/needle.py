"""Needle in a long document: does a model find a fact that stands after so many tokens?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedline.evaluation.bootstrap import interval_of_mean
from embedline.evaluation.haystack import GENERATOR, haystacks, set_name
from embedline.evaluation.local import Subject
from embedline.evaluation.sets import score_row

METRIC, REMOVED = "recall@1", "recall@1_needle_removed"


def needle_recall(
    subject: Subject,
    depths: Sequence[int],
    *,
    documents: int = 32,
    seed: int = 0,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Score rows, two a depth: recall@1 of each question among the documents, and the same without needles.

    Documents differ in their filler and in their fact, which starts after `depth` tokens and is followed by
    filler. Without facts nothing is left to find: that recall must be near 1 / `documents`, or the model was
    helped by something else. Of all heads only the dense one is scored, at full width.

    Args:
        subject: its encoder has `count_tokens`, because depths are in the model's own tokens.
    """
    rows = []
    encoder: Any = subject.encoder
    for depth in depths:
        stacks = haystacks(documents, depth, encoder.count_tokens, seed=seed)
        prompt = subject.prompts.prompt("query"), subject.prompts.prompt("document")
        queries = subject.vectors([s.query for s in stacks], prompt[0], subject.query_length)
        for metric, texts in ((METRIC, [s.document for s in stacks]), (REMOVED, [s.without for s in stacks])):
            found = subject.vectors(texts, prompt[1], subject.document_length)
            hits = ((queries @ found.T).argmax(1) == np.arange(documents)).astype(np.float64)
            identity = {
                "model": subject.model,
                "digest": subject.digest,
                "set": set_name(depth),
                "kind": "needle",
                "language": "en-ru",
                "dim": queries.shape[1],
                "runtime": subject.runtime,
                "head": "dense",
                "prompt": " / ".join(map(repr, prompt)) if any(prompt) else "",
                "revision": f"{GENERATOR} seed {seed}",
            }
            rows.append(
                score_row(
                    identity,
                    metric=metric,
                    value=float(hits.mean()),
                    main=metric == METRIC,
                    interval=interval_of_mean(hits, resamples),
                    count=documents,
                )
            )
    return rows

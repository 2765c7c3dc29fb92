"""Batches of single texts: passages for pretraining, texts for healing a pruned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedline.models.embedder import Embedder
from embedline.training.batching.batches import Draw, draw_batches
from embedline.training.batching.words import first_tokens

_LONGEST_TOKEN = 8  # characters; few tokens are longer


@dataclass(frozen=True)
class PassageBatch:
    """A batch of texts: the name of their source, their numbers in it, and their token ids.

    Args:
        words: for each token, the position of the first token of its word; None where no words are used.
    """

    source: str
    rows: list[int]
    ids: list[list[int]]
    words: list[list[int]] | None = None


class Passages(Sequence[PassageBatch]):
    """Batches of shuffled passes over texts; the batch with the longest texts is the first.

    Args:
        length: tokens after which a text is cut.
        batch: texts of a batch, at most as many as there are.
        words: whether batches tell which tokens are one word.
    """

    def __init__(
        self,
        embedder: Embedder,
        texts: Sequence[str],
        *,
        source: str,
        length: int,
        batch: int,
        steps: int,
        seed: int,
        words: bool = False,
    ) -> None:
        self.embedder, self.texts, self.length, self.words = embedder, texts, length, words
        draws = draw_batches({source: len(texts)}, {source: 1.0}, batch=batch, steps=steps, seed=seed)
        self.draws = draws.led_by([_longest(draws, texts, length)])

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: Any) -> Any:
        draw = self.draws[index]
        rows = draw.rows.tolist()
        texts = [self.texts[i] for i in rows]
        ids = self.embedder.tokenize(texts, max_length=self.length)
        words = None
        if self.words:
            words = first_tokens(self.embedder.tokenizer, texts, max_length=self.length)
        return PassageBatch(draw.source, rows, ids, words)


def _longest(draws: Sequence[Draw], texts: Sequence[str], length: int) -> int:
    """Return the batch whose texts are the longest, by characters: it comes first, to show a lack of memory.

    A text counts up to where it is sure to be cut.
    """
    sizes = np.array([min(len(text), _LONGEST_TOKEN * length) for text in texts])
    return int(np.argmax([sizes[draw.rows].sum() for draw in draws]))

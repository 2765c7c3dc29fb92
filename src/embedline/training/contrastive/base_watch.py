"""The watch over a pretrained model in the first steps of a contrastive stage.

A learning rate that is too high destroys in a few steps what a model has learnt. Losses of batches do not
show it in time: those of two sources differ by more than a training changes. So some pairs of the stage's own
batches are measured several times, first as the untouched model encodes them: the same pairs, without
dropout, so that all difference is the training's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.errors import StepError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.engine import processes

STEPS = (2, 5, 10, 20, 35, 50)  # updates after which the pairs are measured
_BATCHES, _PAIRS = 8, 8  # batches that pairs are taken from, and pairs of each
_LEAST_ACCURACY = 0.25  # of a model that can do something which could be lost
_LOSS_RISES, _ACCURACY_FALLS, _ALIGNMENT_FALLS = 1.25, 0.7, 0.5
_MOST_RATE = 1e-4  # a rate that pretrained encoders bear


@dataclass(frozen=True)
class Health:
    """How well a model finds the documents of some queries among all of them.

    Args:
        loss: InfoNCE.
        accuracy: share of the queries whose own document is the nearest one.
        alignment: mean cosine of the pairs minus the mean cosine of a query and another's document.
    """

    loss: float
    accuracy: float
    alignment: float

    def ruined(self, before: Health) -> bool:
        """Return whether loss, accuracy and alignment are all far worse than `before`."""
        return (
            before.accuracy >= _LEAST_ACCURACY
            and self.loss > before.loss * _LOSS_RISES
            and self.accuracy < before.accuracy * _ACCURACY_FALLS
            and self.alignment < before.alignment * _ALIGNMENT_FALLS
        )


class BaseWatch:
    """Measure a pretrained model on the same pairs, before and during the first steps of a training.

    Example:
        >>> watch = BaseWatch(embedder, batches, learning_rate=1e-4, temperature=0.02, batch_tokens=4096)
        >>> watch(2)  # after two updates

    Args:
        model: as it is before the first step.
        batches: of the training; pairs of up to eight of them are measured, none of rows with scores.
        learning_rate: of the training, which the error names.
        temperature: of the loss.
        batch_tokens: tokens encoded together, padding included.
        bf16: encode under bf16 autocast, as the training does.
    """

    def __init__(
        self,
        model: Embedder,
        batches: Sequence[ContrastiveBatch],
        *,
        learning_rate: float,
        temperature: float,
        batch_tokens: int,
        bf16: bool = False,
    ) -> None:
        self.model, self.learning_rate, self.temperature = model, learning_rate, temperature
        self.batch_tokens, self.bf16 = batch_tokens, bf16
        self.queries, self.documents = _pairs(batches)
        self.before = self._measure() if len(self.queries) > 1 else None

    def __call__(self, step: int) -> None:
        """Measure the model after `step` updates, if that is one of STEPS.

        Raises:
            StepError: it has lost what the base could do.
        """
        if self.before is None or step not in STEPS:
            return
        now = self._measure()
        if processes.any_of(now.ruined(self.before)):
            raise self._error(self.before, now, step)

    def _measure(self) -> Health:
        was_training = self.model.training
        self.model.eval()
        queries_ND, documents_ND = self._encode(self.queries), self._encode(self.documents)
        self.model.train(was_training)
        cosines_NN = queries_ND @ documents_ND.T
        count = len(cosines_NN)
        own_NN = torch.eye(count, dtype=torch.bool)
        others_NN = ~_same(self.documents) & ~_same(self.queries)
        logits_NN = (cosines_NN / self.temperature).masked_fill(~(others_NN | own_NN), -torch.inf)
        return Health(
            loss=float(F.cross_entropy(logits_NN, torch.arange(count))),
            accuracy=float((logits_NN.argmax(1) == torch.arange(count)).float().mean()),
            alignment=float(cosines_NN[own_NN].mean() - cosines_NN[others_NN].mean()),
        )

    @torch.no_grad()
    def _encode(self, ids: list[list[int]]) -> Tensor:
        """Encode texts as unit vectors on the CPU (N × D)."""
        unit_ND = torch.zeros(len(ids), self.model.width)
        for positions in token_batches([len(row) for row in ids], self.batch_tokens):
            inputs = self.model.pad([ids[i] for i in positions])
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
                vectors = self.model(inputs["input_ids"], inputs["attention_mask"])
            unit_ND[torch.from_numpy(positions)] = F.normalize(vectors.float(), dim=-1).cpu()
        return unit_ND

    def _error(self, before: Health, now: Health, step: int) -> StepError:
        rate = min(self.learning_rate / 10, _MOST_RATE)
        return StepError(
            f"the training destroys what the model had learnt: after {step} steps, on {len(self.queries)} of "
            f"its pairs, the loss rose from {before.loss:.2f} to {now.loss:.2f}, in-batch accuracy fell from "
            f"{before.accuracy:.0%} to {now.accuracy:.0%}, and alignment (mean cosine of the pairs above "
            f"that of other texts) from {before.alignment:.3f} to {now.alignment:.3f}.",
            where="training",
            fix=f"Lower learning_rate from {self.learning_rate:g} to {rate:g} or less.",
        )


def _pairs(batches: Sequence[ContrastiveBatch]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the token ids of queries and their positives, of batches from all over the training."""
    queries: list[list[int]] = []
    documents: list[list[int]] = []
    taken = 0
    count = min(len(batches), 2 * _BATCHES)
    for number in range(count):
        batch = batches[number * len(batches) // count]
        if batch.scores is None and taken < _BATCHES:
            taken += 1
            own = batch.ids[batch.query_count :]
            queries += batch.ids[: min(_PAIRS, batch.query_count)]
            documents += own[: min(_PAIRS, batch.query_count)]
    return queries, documents


def _same(texts: list[list[int]]) -> Tensor:
    """Return which of the texts are the same tokens (N × N)."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(map(tuple, texts)))}
    number_N = torch.tensor([numbers[tuple(text)] for text in texts])
    return number_N[:, None] == number_N[None, :]

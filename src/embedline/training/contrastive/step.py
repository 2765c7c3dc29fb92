"""One step of contrastive training: a batch to its objective's loss, and the gradients it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.head_scores import lexical_scores, multi_vector_scores
from embedline.models.heads import Encoded
from embedline.training.contrastive.batch_metrics import in_batch
from embedline.training.contrastive.gradcache import GradCache, Loss
from embedline.training.contrastive.known_positives import KnownAnswers
from embedline.training.contrastive.teacher import Teaching
from embedline.training.engine import processes
from embedline.training.engine.step_timer import Metrics
from embedline.training.objectives.cosent import cosent
from embedline.training.objectives.distillation import Told
from embedline.training.objectives.infonce import contrastive_loss, info_nce, left_out
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.objectives.unified import unified_loss


class Temperature(nn.Module):
    """A trained temperature: the logarithm of its inverse is the parameter, as in CLIP (Radford et al. 2021).

    It starts at `start`, and does not fall below 0.01, or below `start` where that is smaller: the parameter
    itself is held there, as CLIP does it. Beyond a bound on its value alone it would have no gradient back.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))
        self.limit = max(math.log(100.0), -math.log(start))

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.log_scale.clamp_(max=self.limit)
        return (-self.log_scale).exp()


class ContrastiveStep:
    """One optimizer step on one batch of one source."""

    def __init__(
        self,
        cache: GradCache,
        config: ContrastiveConfig,
        temperature: Temperature | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        self.cache, self.config, self.learned, self.teaching = cache, config, temperature, teaching
        self._full_batch = min((bucket.batch for bucket in config.buckets), default=config.batch)
        self.dims: dict[int, float] = {}
        if config.matryoshka:
            self.dims = weighted_dims(cache.model.width, cache.model.spec.dims, config.matryoshka_weights)

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Metrics]:
        all_heads = batch["scores"] is None and self.config.objective == "unified"
        ids, place = distinct(batch["ids"], batch["queries"])
        loss = processes.agreed(lambda: self._objective(batch, place))
        value, metrics = self.cache.step(ids, _at(place, self._taught(loss, batch)), dense_only=not all_heads)
        if batch["scores"] is None:  # CoSENT has a scale of its own
            with torch.no_grad():
                metrics["temperature"] = self._temperature()
        if self.learned is not None:
            for parameter in self.learned.parameters():
                if parameter.grad is not None:  # all of it in each process, and they will be summed
                    parameter.grad /= processes.count()
        metrics[f"loss.{batch['source']}"] = value
        return value, {**metrics, "tokens": float(sum(len(row) for row in ids))}

    def _objective(self, batch: dict[str, Any], place: Tensor) -> Loss:
        if batch["scores"] is not None:
            return self._cosent(batch)
        rules = self._rules(batch, place)
        return (self._unified if self.config.objective == "unified" else self._info_nce)(batch, rules)

    def _taught(self, loss: Loss, batch: dict[str, Any]) -> Loss:
        """The objective's loss and the teacher's, if there is one that has something to say."""
        with self.cache.watch.phase("forward"):
            lesson = (
                self.teaching.lesson(batch, batch_tokens=self.cache.budget.chunk) if self.teaching else None
            )
        if self.teaching is None or lesson is None:
            return loss
        weight = self.teaching.config.weight

        def both(encoded: Tensor | Encoded) -> tuple[Tensor, Metrics]:
            value, metrics = loss(encoded)
            learnt = lesson(encoded.dense if isinstance(encoded, Encoded) else encoded)
            return value + weight * learnt, {**metrics, "distillation_loss": learnt.detach()}

        return both

    def _info_nce(self, batch: dict[str, Any], rules: dict[str, Any]) -> Loss:
        count = batch["queries"]

        def at_width(vectors: Tensor) -> Tensor:
            return info_nce(*vectors.tensor_split([count]), **rules)

        def loss(vectors: Tensor) -> tuple[Tensor, Metrics]:
            rules["temperature"] = self._temperature()
            return self._nested(at_width, vectors), self._placed(vectors, count, rules)

        return loss

    def _unified(self, batch: dict[str, Any], rules: dict[str, Any]) -> Loss:
        count = batch["queries"]
        rules["same_NM"] = rules["same_NM"][:]  # its other heads have all scores at once, too
        ids = self.cache.model.pad(batch["ids"])["input_ids"]
        distill = self.config.self_distillation and batch["step"] >= self.config.self_distillation_after

        def loss(encoded: Encoded) -> tuple[Tensor, Metrics]:
            rules["temperature"] = self._temperature()
            scores: dict[str, Tensor | None] = {"lexical": None, "multi_vector": None}
            if (weights := encoded.lexical) is not None:
                scores["lexical"] = lexical_scores(ids[:count], weights[:count], ids[count:], weights[count:])
            if (tokens := encoded.tokens) is not None:
                with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.cache.bf16):
                    scores["multi_vector"] = multi_vector_scores(tokens[:count], tokens[count:])
            value = self._nested(
                lambda v: unified_loss(
                    _cosines(v, count),
                    scores["lexical"],
                    scores["multi_vector"],
                    distill=distill,
                    hybrid=self.cache.model.spec.hybrid,
                    **rules,
                ),
                encoded.dense,
            )
            metrics = self._placed(encoded.dense, count, rules)
            with self.cache.watch.phase("logging"), torch.no_grad():
                heads = {"dense": _cosines(encoded.dense, count), **scores}
                metrics |= _losses({name: each for name, each in heads.items() if each is not None}, rules)
            return value, metrics

        return loss

    def _cosent(self, batch: dict[str, Any]) -> Loss:
        count = batch["queries"]
        scores_N = torch.tensor(batch["scores"], device=self.cache.model.device)

        def at_width(vectors: Tensor) -> Tensor:
            return cosent(vectors[:count], vectors[count:], scores_N, scale=self.config.cosent_scale)

        def loss(vectors: Tensor) -> tuple[Tensor, Metrics]:
            value = self._nested(at_width, vectors)
            return value, {"cosent_loss": value.detach()}

        return loss

    def _placed(self, vectors: Tensor, count: int, rules: Mapping[str, Any]) -> Metrics:
        """What a logged step also says of its vectors."""
        if not self.cache.watch.due:
            return {}
        with self.cache.watch.phase("logging"):
            return in_batch(vectors, count, rules)

    def _nested(self, at_width: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        if not self.dims:
            return at_width(vectors)
        return matryoshka(
            at_width,
            vectors,
            list(self.dims),
            list(self.dims.values()),
        )

    def _told(self, batch: dict[str, Any]) -> Told | None:
        """What the rows' own teacher said; None where there is nothing."""
        config = self.config.distillation
        if config is None or config.of != "rows" or not any(batch["told"]):
            return None
        told_NM = torch.full((batch["queries"], len(batch["owner"])), -torch.inf)
        owner_M = torch.tensor(batch["owner"])
        for row, scores in enumerate(batch["told"]):
            if scores is not None:  # the query's documents stand in the order of their scores
                told_NM[row, owner_M == row] = torch.tensor(scores, dtype=told_NM.dtype)
        return Told(told_NM.to(self.cache.model.device), config.loss, config.weight)

    def _temperature(self) -> float | Tensor:
        return self.config.temperature if self.learned is None else self.learned()

    def _rules(self, batch: dict[str, Any], place: Tensor) -> dict[str, Any]:
        """Which documents count for which query, and what the rows say of them.

        Args:
            place: as `distinct` gives it.

        Raises:
            InputError: none of them is a negative, in a full batch.
        """
        device = self.cache.model.device
        tokens = place[batch["queries"] :].tolist()
        known = KnownAnswers(batch["query_texts"], batch["answers"], batch["texts"], device, tokens=tokens)
        # Rows of a group that is too small for a batch may happen to answer each other: that costs one step.
        if known.everything and batch["queries"] >= self._full_batch:
            raise InputError(
                f"a batch from {batch['source']} holds no negative: each document answers each query.",
                where="data.sources",
                fix="Leave the source out of this stage, or give it records that differ.",
            )
        return {
            "owner_M": torch.tensor(batch["owner"], device=device),
            "same_NM": known,
            "symmetric": self.config.symmetric,
            "in_batch_negatives": self.config.in_batch_negatives,
            "false_negative_margin": self.config.false_negative_margin,
            "told": self._told(batch),
        }


def distinct(ids: Sequence[list[int]], queries: int) -> tuple[list[list[int]], Tensor]:
    """The texts that differ, in the order of their first places, and for each text its place among them (N).

    A query and a document that are equal stay two: with dropout they are two views of one text (SimCSE, Gao
    et al. 2021).
    """
    places: dict[tuple[bool, bytes], int] = {}
    keys = ((i < queries, np.asarray(row, dtype=np.int32).tobytes()) for i, row in enumerate(ids))
    place = [places.setdefault(key, len(places)) for key in keys]
    first = np.unique(place, return_index=True)[1]
    return [ids[i] for i in first], torch.tensor(place)


def _at(place_N: Tensor, loss: Loss) -> Loss:
    """The loss of N texts, given what the model says of those that differ."""
    if int(place_N.max()) + 1 == len(place_N):
        return loss

    def repeated(encoded: Any) -> tuple[Tensor, Metrics]:
        if isinstance(encoded, Encoded):
            return loss(Encoded(*(None if each is None else each[place_N] for each in encoded)))  # type: ignore[arg-type]
        return loss(encoded[place_N])

    return repeated


def _losses(heads: Mapping[str, Tensor], rules: Mapping[str, Any]) -> Metrics:
    """InfoNCE of each head's scores alone; what the dense scores leave out, the others do too."""
    counted = {"owner_M": rules["owner_M"], "in_batch_negatives": rules["in_batch_negatives"]}
    left_out_NM = left_out(
        heads["dense"],
        same_NM=rules["same_NM"],
        false_negative_margin=rules["false_negative_margin"],
        **counted,
    )
    return {
        f"{name}_loss": contrastive_loss(
            scores, same_NM=left_out_NM, temperature=rules["temperature"], **counted
        )
        for name, scores in heads.items()
    }


def _cosines(vectors_ND: Tensor, count: int) -> Tensor:
    """Of the first `count` vectors and the others (N × M)."""
    unit_ND = F.normalize(vectors_ND, dim=-1)
    return unit_ND[:count] @ unit_ND[count:].T


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

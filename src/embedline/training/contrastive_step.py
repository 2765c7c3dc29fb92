"""One step of contrastive training: a batch to its objective's loss, and the gradients it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.heads import Encoded
from embedline.models.scoring import lexical_scores, multi_vector_scores
from embedline.training import processes
from embedline.training.answers import KnownAnswers, ToldScores
from embedline.training.gradcache import GradCache, Loss
from embedline.training.objectives.cosent import cosent
from embedline.training.objectives.distillation import told_divergence
from embedline.training.objectives.infonce import contrastive_loss, info_nce, left_out
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.objectives.streaming import by_rows
from embedline.training.objectives.unified import unified_loss
from embedline.training.teaching import Teaching


class Temperature(nn.Module):
    """A trained temperature: the logarithm of its inverse is the parameter, as in CLIP (Radford et al. 2021).

    It starts at `start`, and does not fall below 0.01, or below `start` where that is smaller.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))
        self.limit = max(math.log(100.0), -math.log(start))

    def forward(self) -> Tensor:
        return (-self.log_scale.clamp(max=self.limit)).exp()


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
        self.dims: dict[int, float] = {}
        if config.matryoshka:
            self.dims = weighted_dims(cache.model.width, cache.model.spec.dims, config.matryoshka_weights)

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        all_heads = batch["scores"] is None and self.config.objective == "unified"
        if batch["scores"] is not None:
            loss = self._cosent(batch)
        else:
            loss = self._unified(batch) if all_heads else self._info_nce(batch)
        value, metrics = self.cache.step(batch["ids"], self._taught(loss, batch), dense_only=not all_heads)
        if self.learned is not None:
            metrics["temperature"] = float(self.learned().detach())
            for parameter in self.learned.parameters():
                if parameter.grad is not None:  # all of it in each process, and they will be summed
                    parameter.grad /= processes.count()
        return value, {**metrics, "tokens": float(sum(len(row) for row in batch["ids"]))}

    def _taught(self, loss: Loss, batch: dict[str, Any]) -> Loss:
        """The objective's loss and the teacher's, if there is one that has something to say."""
        lesson = self.teaching.lesson(batch) if self.teaching else None
        if self.teaching is None or lesson is None:
            return loss
        weight = self.teaching.config.weight

        def both(encoded: Tensor | Encoded) -> tuple[Tensor, dict[str, float]]:
            value, metrics = loss(encoded)
            learnt = lesson(encoded.dense if isinstance(encoded, Encoded) else encoded)
            return value + weight * learnt, {**metrics, "distillation_loss": float(learnt.detach())}

        return both

    def _info_nce(self, batch: dict[str, Any]) -> Loss:
        count, rules, told = batch["queries"], self._rules(batch), self._told(batch)

        def at_width(vectors: Tensor) -> Tensor:
            found = info_nce(*vectors.tensor_split([count]), **rules)
            if told is None:
                return found
            return found + self._told_weight * _told_loss(vectors, count, told, rules["temperature"])

        def loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
            rules["temperature"] = self._temperature()
            return self._nested(at_width, vectors), {}

        return loss

    def _unified(self, batch: dict[str, Any]) -> Loss:
        count, rules, told = batch["queries"], self._rules(batch), self._told(batch)
        rules["same_NM"] = rules["same_NM"][:]  # its other heads have all scores at once, too
        told_NM = None if told is None else told[:]
        ids = self.cache.model.pad(batch["ids"])["input_ids"]
        distill = self.config.self_distillation and batch["step"] >= self.config.self_distillation_after

        def loss(encoded: Encoded) -> tuple[Tensor, dict[str, float]]:
            rules["temperature"] = self._temperature()
            scores: dict[str, Tensor | None] = {"lexical": None, "multi_vector": None}
            if (weights := encoded.lexical) is not None:
                scores["lexical"] = lexical_scores(ids[:count], weights[:count], ids[count:], weights[count:])
            if (tokens := encoded.tokens) is not None:
                scores["multi_vector"] = multi_vector_scores(tokens[:count], tokens[count:])
            value = self._nested(
                lambda v: unified_loss(
                    _cosines(v, count),
                    scores["lexical"],
                    scores["multi_vector"],
                    distill=distill,
                    hybrid=self.cache.model.spec.hybrid,
                    told_NM=told_NM,
                    told_weight=self._told_weight,
                    **rules,
                ),
                encoded.dense,
            )
            with torch.no_grad():
                heads = {"dense": _cosines(encoded.dense, count), **scores}
                metrics = _losses({name: each for name, each in heads.items() if each is not None}, rules)
            return value, metrics

        return loss

    def _cosent(self, batch: dict[str, Any]) -> Loss:
        count = batch["queries"]
        scores_N = torch.tensor(batch["scores"], device=self.cache.model.device)

        def at_width(vectors: Tensor) -> Tensor:
            return cosent(vectors[:count], vectors[count:], scores_N, scale=self.config.cosent_scale)

        def loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
            value = self._nested(at_width, vectors)
            return value, {"cosent_loss": float(value.detach())}

        return loss

    def _nested(self, at_width: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        if not self.dims:
            return at_width(vectors)
        return matryoshka(
            at_width,
            vectors,
            list(self.dims),
            list(self.dims.values()),
        )

    @property
    def _told_weight(self) -> float:
        return self.config.distillation.weight if self.config.distillation else 0.0

    def _told(self, batch: dict[str, Any]) -> ToldScores | None:
        """What the rows' own teacher said; None where there is nothing."""
        config = self.config.distillation
        if config is None or config.of != "rows" or not any(batch["told"]):
            return None
        return ToldScores(batch["told"], batch["owner"], self.cache.model.device)

    def _temperature(self) -> float | Tensor:
        return self.config.temperature if self.learned is None else self.learned()

    def _rules(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Which documents count for which query.

        Raises:
            InputError: none of them is a negative.
        """
        device = self.cache.model.device
        known = KnownAnswers(batch["query_texts"], batch["answers"], batch["texts"], device)
        if known.everything:
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
        }


def _losses(heads: Mapping[str, Tensor], rules: Mapping[str, Any]) -> dict[str, float]:
    """InfoNCE of each head's scores alone; what the dense scores leave out, the others do too."""
    counted = {"owner_M": rules["owner_M"], "in_batch_negatives": rules["in_batch_negatives"]}
    left_out_NM = left_out(
        heads["dense"],
        same_NM=rules["same_NM"],
        false_negative_margin=rules["false_negative_margin"],
        **counted,
    )
    return {
        f"{name}_loss": float(
            contrastive_loss(scores, same_NM=left_out_NM, temperature=rules["temperature"], **counted)
        )
        for name, scores in heads.items()
    }


def _told_loss(vectors_ND: Tensor, count: int, told: ToldScores, temperature: float | Tensor) -> Tensor:
    """`told_divergence` of the cosines, in blocks of queries."""
    unit_ND = F.normalize(vectors_ND, dim=-1)
    queries_ND, documents_MD = unit_ND[:count], unit_ND[count:]
    blocks = by_rows(
        lambda rows: told_divergence(
            queries_ND[rows] @ documents_MD.T, told[rows], temperature=temperature, asked=told.asked
        ),
        len(queries_ND),
        len(documents_MD),
    )
    return torch.stack(blocks).sum()


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

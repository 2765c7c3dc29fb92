"""One step of contrastive training: the loss of the objective and its gradients for a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.models.head_scores import lexical_scores, multi_vector_scores
from embedline.models.heads import Encoded
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.contrastive.active_terms import active_terms, require_healthy
from embedline.training.contrastive.batch_metrics import batch_metrics
from embedline.training.contrastive.distinct_texts import distinct, repeated
from embedline.training.contrastive.gradcache import GradCache, Loss
from embedline.training.contrastive.known_positives import KnownPositives
from embedline.training.contrastive.no_negative import no_negative
from embedline.training.contrastive.teacher import Teacher
from embedline.training.engine import processes
from embedline.training.engine.step_timer import Metrics
from embedline.training.objectives.cosent import cosent
from embedline.training.objectives.distillation import TeacherScores
from embedline.training.objectives.infonce import contrastive_loss, info_nce
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.objectives.negatives import NegativeRules
from embedline.training.objectives.unified import unified_loss


class Temperature(nn.Module):
    """A trained temperature: the logarithm of its inverse is the parameter, as in CLIP (Radford et al. 2021).

    It starts at `start`, and does not fall below 0.01, or below `start` where that is smaller: the parameter
    itself is clamped, as in CLIP. If only its value were clamped, it would have no gradient to return by.
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
    """One optimizer step on one batch of one source.

    Args:
        cache: encodes the batch and leaves the gradients.
        temperature: the trained temperature; the stage's setting when None.
        teacher: its loss is added to the objective's.
    """

    def __init__(
        self,
        cache: GradCache,
        config: ContrastiveConfig,
        temperature: Temperature | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.cache, self.config, self.trained_temperature = cache, config, temperature
        self.teacher = teacher
        self._full_batch = min((bucket.batch for bucket in config.buckets), default=config.batch)
        self.dims: dict[int, float] = {}
        if config.matryoshka:
            self.dims = weighted_dims(cache.model.width, cache.model.spec.dims, config.matryoshka_weights)

    def __call__(self, module: nn.Module, batch: ContrastiveBatch) -> tuple[Tensor, Metrics]:
        all_heads = batch.scores is None and self.config.objective == "unified"
        if self.config.freeze_encoder:
            module.eval()  # without dropout the states are those that dense vectors are made of
        ids, position_N = distinct(batch.ids, batch.query_count)
        loss = processes.run_in_lockstep(lambda: self._objective(batch, position_N))
        value, metrics = self.cache.step(
            ids, repeated(position_N, self._with_teacher(loss, batch)), dense_only=not all_heads
        )
        if batch.scores is None:  # CoSENT has its own scale
            with torch.no_grad():
                metrics["temperature"] = self._temperature()
        projection = self.teacher.projection if self.teacher else None
        for module_of_loss in (self.trained_temperature, projection):
            for parameter in module_of_loss.parameters() if module_of_loss else ():
                if parameter.grad is not None:  # whole in each process; a sum over processes follows
                    parameter.grad /= processes.world_size()
        metrics[f"loss.{batch.source}"] = value
        return value, {**metrics, "tokens": float(sum(len(row) for row in ids))}

    def _objective(self, batch: ContrastiveBatch, position_N: Tensor) -> Loss:
        if batch.scores is not None:
            return self._cosent(batch, batch.scores)
        rules = self._rules(batch, position_N)
        return (self._unified if self.config.objective == "unified" else self._info_nce)(batch, rules)

    def _with_teacher(self, loss: Loss, batch: ContrastiveBatch) -> Loss:
        """Add the teacher's loss to the objective's, if there is a teacher with a loss of this batch."""
        with self.cache.timer.phase("forward"):
            teacher_loss = self.teacher.teacher_loss(batch) if self.teacher else None
        if self.teacher is None or teacher_loss is None:
            return loss
        weight = self.teacher.config.weight

        def both(encoded: Tensor | Encoded) -> tuple[Tensor, Metrics]:
            value, metrics = loss(encoded)
            distilled = teacher_loss(encoded.dense if isinstance(encoded, Encoded) else encoded)
            return value + weight * distilled, {**metrics, "distillation_loss": distilled.detach()}

        return both

    def _info_nce(self, batch: ContrastiveBatch, rules: NegativeRules) -> Loss:
        count, teacher_scores = batch.query_count, self._teacher_scores(batch)

        def loss(vectors: Tensor) -> tuple[Tensor, Metrics]:
            temperature = self._temperature()

            def at_width(vectors: Tensor) -> Tensor:
                queries_ND, documents_MD = vectors.tensor_split([count])
                return info_nce(
                    queries_ND,
                    documents_MD,
                    rules,
                    temperature=temperature,
                    symmetric=self.config.symmetric,
                    teacher_scores=teacher_scores,
                )

            return self._nested(at_width, vectors), self._metrics(vectors, count, rules, temperature)

        return loss

    def _unified(self, batch: ContrastiveBatch, rules: NegativeRules) -> Loss:
        count, teacher_scores = batch.query_count, self._teacher_scores(batch)
        # All rows at once: the scores of the other heads are not computed in blocks either.
        rules = replace(rules, known_positives_NM=rules.known_positives_NM[:])
        ids, mask = self.cache.model.pad(batch.ids).values()
        distill = self.config.self_distillation and batch.step >= self.config.self_distillation_after

        def loss(encoded: Encoded) -> tuple[Tensor, Metrics]:
            temperature = self._temperature()
            scores: dict[str, Tensor | None] = {"lexical": None, "multi_vector": None}
            if (weights := encoded.lexical) is not None:
                scores["lexical"] = lexical_scores(ids[:count], weights[:count], ids[count:], weights[count:])
            if (tokens := encoded.tokens) is not None:
                with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.cache.bf16):
                    scores["multi_vector"] = multi_vector_scores(tokens[:count], tokens[count:])
            value = self._nested(
                lambda vectors: unified_loss(
                    _cosines(vectors, count),
                    scores["lexical"],
                    scores["multi_vector"],
                    rules,
                    temperature=temperature,
                    distill=distill,
                    symmetric=self.config.symmetric,
                    hybrid=self.cache.model.spec.hybrid,
                    teacher_scores=teacher_scores,
                ),
                encoded.dense,
            )
            metrics = self._metrics(encoded.dense, count, rules, temperature)
            with self.cache.timer.phase("logging"), torch.no_grad():
                heads = {"dense": _cosines(encoded.dense, count), **scores}
                metrics |= _losses(
                    {name: each for name, each in heads.items() if each is not None}, rules, temperature
                )
                if encoded.lexical is not None:
                    metrics |= self._watched(batch, ids, encoded.lexical, mask)
            return value, metrics

        return loss

    def _watched(self, batch: ContrastiveBatch, ids: Tensor, weights: Tensor, mask: Tensor) -> Metrics:
        """Measure and check the lexical weights of a logged step; empty at other steps."""
        if not self.cache.timer.log_due:
            return {}
        terms = mask.bool() & ~torch.isin(ids, self.cache.model.heads.get_buffer("lexical.special"))
        metrics = active_terms(ids, weights, terms, batch.query_count)
        require_healthy(metrics, batch.step)
        return metrics

    def _cosent(self, batch: ContrastiveBatch, scores: list[float]) -> Loss:
        count = batch.query_count
        scores_N = torch.tensor(scores, device=self.cache.model.device)

        def at_width(vectors: Tensor) -> Tensor:
            return cosent(vectors[:count], vectors[count:], scores_N, scale=self.config.cosent_scale)

        def loss(vectors: Tensor) -> tuple[Tensor, Metrics]:
            value = self._nested(at_width, vectors)
            return value, {"cosent_loss": value.detach()}

        return loss

    def _metrics(
        self, vectors: Tensor, count: int, rules: NegativeRules, temperature: float | Tensor
    ) -> Metrics:
        """Measure the vectors of a logged step; empty at other steps."""
        if not self.cache.timer.log_due:
            return {}
        with self.cache.timer.phase("logging"):
            return batch_metrics(vectors, count, rules, temperature=temperature)

    def _nested(self, at_width: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
        """Take the loss at each of the Matryoshka dims, or at full width where there are none."""
        if not self.dims:
            return at_width(vectors)
        return matryoshka(
            at_width,
            vectors,
            list(self.dims),
            list(self.dims.values()),
        )

    def _teacher_scores(self, batch: ContrastiveBatch) -> TeacherScores | None:
        """Return the scores that the rows have; None where they are not learnt, or no row has any."""
        config = self.config.distillation
        if config is None or config.of != "rows" or not any(batch.teacher_scores):
            return None
        scores_NM = torch.full((batch.query_count, len(batch.query_index)), -torch.inf)
        query_index_M = torch.tensor(batch.query_index)
        for row, scores in enumerate(batch.teacher_scores):
            if scores is not None:  # the query's documents are in the order of their scores
                scores_NM[row, query_index_M == row] = torch.tensor(scores, dtype=scores_NM.dtype)
        return TeacherScores(scores_NM.to(self.cache.model.device), config.loss, config.weight)

    def _temperature(self) -> float | Tensor:
        return self.config.temperature if self.trained_temperature is None else self.trained_temperature()

    def _rules(self, batch: ContrastiveBatch, position_N: Tensor) -> NegativeRules:
        """Return which documents of the batch count as negatives of which query.

        Args:
            position_N: as `distinct` returns it.

        Raises:
            InputError: a full batch has no negative.
        """
        device = self.cache.model.device
        known = KnownPositives(
            batch.query_texts,
            batch.known_positives,
            batch.document_texts,
            device,
            tokens=position_N[batch.query_count :].tolist(),
        )
        # Rows of a group smaller than a batch may happen to be each other's positives: that costs one step.
        if known.everything and batch.query_count >= self._full_batch:
            raise no_negative(batch, self.cache.model)
        return NegativeRules(
            torch.tensor(batch.query_index, device=device),
            known,
            in_batch_negatives=self.config.in_batch_negatives,
            false_negative_margin=self.config.false_negative_margin,
        )


def _losses(heads: Mapping[str, Tensor], rules: NegativeRules, temperature: float | Tensor) -> Metrics:
    """Return the InfoNCE of each head's scores alone, all with the mask of the dense scores."""
    masked = NegativeRules(
        rules.query_index_M,
        rules.ignored_mask(heads["dense"]),
        in_batch_negatives=rules.in_batch_negatives,
    )
    return {
        f"{name}_loss": contrastive_loss(scores, masked, temperature=temperature)
        for name, scores in heads.items()
    }


def _cosines(vectors_ND: Tensor, count: int) -> Tensor:
    """Return the cosines of the first `count` vectors and the others (N × M)."""
    unit_ND = F.normalize(vectors_ND, dim=-1)
    return unit_ND[:count] @ unit_ND[count:].T


def weighted_dims(width: int, dims: Sequence[int], weights: Sequence[float]) -> dict[int, float]:
    """Return weight by dim of the Matryoshka loss: of `dims`, and of the full width, 1 where it is not named.

    Args:
        weights: one for each of `dims`; 1 each when empty.

    Raises:
        InputError: a dim larger than the width.
    """
    if dims and max(dims) > width:
        raise InputError(f"{max(dims)} is larger than the model's width {width}.", where="model.dims")
    return {width: 1.0, **dict(zip(dims, weights or [1.0] * len(dims), strict=True))}

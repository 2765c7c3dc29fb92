"""Healing: what pruning broke is learnt again from the unpruned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import Optimization
from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.heads import Encoded
from embedline.training.batching.passages import Passages
from embedline.training.contrastive.gradcache import TokenBudget
from embedline.training.engine.progress import OnMetrics
from embedline.training.engine.step_timer import Metrics, Watch
from embedline.training.engine.trainer import train
from embedline.training.objectives.distillation import distillation_loss, heads_distance


@dataclass(frozen=True)
class Fidelity:
    """How near the student is to the teacher on texts: mean cosine, mean `distillation_loss`."""

    cosine: float
    loss: float


def heal(
    student: Embedder,
    teacher: Embedder,
    texts: Sequence[str],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    batch_tokens: int,
    seed: int,
    bf16: bool,
    checkpoints: Path,
    on_metrics: OnMetrics,
    evidence: Path | None = None,
) -> None:
    """Train `student` in place to give what all heads of `teacher` (of the same widths) give for `texts`.

    A resumed healing ends where an uninterrupted one does: batch i depends on `seed` alone.

    Args:
        texts: with their prompts; used again in another order when there are fewer than steps × batch.
        batch_tokens: tokens of a chunk, padding included: what bounds the memory, whatever the batch.
        evidence: as in `engine.train`.

    Raises:
        InputError: no texts.
    """
    if not texts:
        raise InputError("there are no texts to heal the pruned model with.", where="prune.heal_steps")
    optimization = Optimization(
        steps=steps,
        learning_rate=learning_rate,
        warmup=0.1,
        batch_tokens=batch_tokens,
        checkpoint_every=max(1, steps // 4),
        log_every=max(1, min(10, steps // 10)),
    )
    budget = TokenBudget(batch_tokens)
    watch = Watch(student, bf16=bf16)
    train(
        student,
        Passages(
            student,
            texts,
            source="healing",
            length=student.spec.document_length,
            batch=min(batch, len(texts)),
            steps=steps,
            seed=seed,
        ),
        _HealStep(student, teacher, budget, watch),
        optimization,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
        budget=budget,
        watch=watch,
        evidence=evidence,
    )


@torch.no_grad()
def fidelity(student: Embedder, teacher: Embedder, texts: Sequence[str], *, batch_tokens: int) -> Fidelity:
    """Measure `student` against `teacher` on texts that it should not have been healed with."""
    found = torch.from_numpy(student.encode(texts, batch_tokens=batch_tokens))
    expected = torch.from_numpy(teacher.encode(texts, batch_tokens=batch_tokens))
    cosine = (found * expected).sum(-1).mean()
    return Fidelity(float(cosine), float(distillation_loss(found, expected, expected).mean()))


class _HealStep:
    """One optimizer step: the teacher's vectors of the whole batch, then the student chunk by chunk."""

    def __init__(self, student: Embedder, teacher: Embedder, budget: TokenBudget, watch: Watch) -> None:
        self.student, self.teacher = student, teacher.eval()
        self.budget, self.watch = budget, watch

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Metrics]:
        self.student.eval()  # dropout would only blur what the teacher says; gradients flow all the same
        device = self.student.device
        self.teacher.to(device)
        ids = batch["ids"]
        chunks = token_batches([len(row) for row in ids], self.budget.chunk)
        inputs = [self.student.pad([ids[i] for i in rows]) for rows in chunks]
        with torch.no_grad():
            taught = [self._encoded(self.teacher, chunk) for chunk in inputs]
        teacher_ND = torch.zeros(len(ids), self.teacher.width, device=device)
        for rows, expected in zip(chunks, taught, strict=True):
            teacher_ND[_index(rows, device)] = expected.dense
        total, cosine = torch.zeros((), device=device), torch.zeros((), device=device)
        for chunk, expected in zip(inputs, taught, strict=True):
            self.watch.padded += chunk["input_ids"].numel()
            found = self._encoded(self.student, chunk)
            with self.watch.phase("forward"):
                losses = distillation_loss(found.dense, expected.dense, teacher_ND)
                losses = losses + heads_distance(found, expected, chunk["attention_mask"])
                loss = losses.sum() / len(ids)
            with self.watch.phase("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            cosine += (found.dense.detach() * expected.dense).sum() / len(ids)
        return total, {"cosine": cosine, "tokens": float(sum(map(len, ids)))}

    def _encoded(self, model: Embedder, inputs: dict[str, Tensor]) -> Encoded:
        """What all heads give, the dense vectors of length 1."""
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=self.watch.bf16)
        with self.watch.phase("forward"), autocast:
            found = model.represent(**inputs)
        return found._replace(dense=F.normalize(found.dense, dim=-1))


def _index(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows)).to(device)

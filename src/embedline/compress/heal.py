"""Healing: distillation of a pruned model from the unpruned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.config.training import Optimization
from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.heads import Encoded
from embedline.training.batching.passages import PassageBatch, Passages
from embedline.training.engine.progress import OnMetrics
from embedline.training.engine.step_timer import Metrics, StepTimer
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.engine.token_rows import token_rows
from embedline.training.engine.trainer import train
from embedline.training.objectives.distillation import distillation_loss, heads_distance


@dataclass(frozen=True)
class Fidelity:
    """Similarity of a student to its teacher on some texts: mean cosine, mean `distillation_loss`."""

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
    warmup: float = 0.1,
    bad_batches: Path | None = None,
) -> None:
    """Train `student` in place towards the outputs of all heads of `teacher` (of the same widths).

    A resumed healing ends with the weights of an uninterrupted one: batch i depends on `seed` alone.

    Example:
        >>> student = without_layers(teacher, choose_layers(teacher, 3, "even"))
        >>> heal(student, teacher, texts, steps=100, batch=128, learning_rate=1e-4, batch_tokens=4096, seed=1,
        ...      bf16=True, checkpoints=Path("checkpoints"), on_metrics=lambda metrics, step: None)

    Args:
        texts: with their prompts; used again in another order when there are fewer than steps × batch.
        batch_tokens: tokens of a chunk, padding included; they bound the memory, whatever the batch.
        warmup: share of the steps in which the learning rate rises from 0.
        checkpoints, on_metrics, bad_batches: as in `engine.trainer.train`.

    Raises:
        InputError: no texts.
    """
    if not texts:
        raise InputError("there are no texts to heal the pruned model with.", where="prune.heal_steps")
    optimization = Optimization(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        batch_tokens=batch_tokens,
        checkpoint_every=max(1, steps // 4),
        log_every=max(1, min(10, steps // 10)),
    )
    budget = TokenBudget(batch_tokens)
    timer = StepTimer(student, bf16=bf16)
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
        _HealStep(student, teacher, budget, timer),
        optimization,
        checkpoints=checkpoints,
        seed=seed,
        on_metrics=on_metrics,
        budget=budget,
        timer=timer,
        bad_batches=bad_batches,
        rows=token_rows(student),
    )


@torch.no_grad()
def fidelity(student: Embedder, teacher: Embedder, texts: Sequence[str], *, batch_tokens: int) -> Fidelity:
    """Compare `student` with `teacher` on texts that it was not healed with."""
    student_ND = torch.from_numpy(student.encode(texts, batch_tokens=batch_tokens))
    teacher_ND = torch.from_numpy(teacher.encode(texts, batch_tokens=batch_tokens))
    cosine = (student_ND * teacher_ND).sum(-1).mean()
    return Fidelity(float(cosine), float(distillation_loss(student_ND, teacher_ND, teacher_ND).mean()))


class _HealStep:
    """One optimizer step: the teacher's vectors of the whole batch, then the student chunk by chunk."""

    def __init__(self, student: Embedder, teacher: Embedder, budget: TokenBudget, timer: StepTimer) -> None:
        self.student, self.teacher = student, teacher.eval()
        self.budget, self.timer = budget, timer

    def __call__(self, module: nn.Module, batch: PassageBatch) -> tuple[Tensor, Metrics]:
        self.student.eval()  # no dropout: its noise would only blur the targets
        device = self.student.device
        self.teacher.to(device)
        ids = batch.ids
        chunks = token_batches([len(row) for row in ids], self.budget.chunk)
        inputs = [self.student.pad([ids[i] for i in rows]) for rows in chunks]
        with torch.no_grad():
            targets = [self._encoded(self.teacher, chunk) for chunk in inputs]
        teacher_ND = torch.zeros(len(ids), self.teacher.width, device=device)
        for rows, expected in zip(chunks, targets, strict=True):
            teacher_ND[_index(rows, device)] = expected.dense
        total, cosine = torch.zeros((), device=device), torch.zeros((), device=device)
        for chunk, expected in zip(inputs, targets, strict=True):
            self.timer.padded_tokens += chunk["input_ids"].numel()
            found = self._encoded(self.student, chunk)
            with self.timer.phase("forward"):
                losses = distillation_loss(found.dense, expected.dense, teacher_ND)
                losses = losses + heads_distance(found, expected, chunk["attention_mask"])
                loss = losses.sum() / len(ids)
            with self.timer.phase("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            cosine += (found.dense.detach() * expected.dense).sum() / len(ids)
        return total, {"cosine": cosine, "tokens": float(sum(map(len, ids)))}

    def _encoded(self, model: Embedder, inputs: dict[str, Tensor]) -> Encoded:
        """Return the outputs of all heads, the dense vectors normalised."""
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=self.timer.bf16)
        with self.timer.phase("forward"), autocast:
            encoded = model.represent(**inputs)
        return encoded._replace(dense=F.normalize(encoded.dense, dim=-1))


def _index(rows: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows)).to(device)

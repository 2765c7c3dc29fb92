"""The one engine: `transformers.Trainer` drives optimizer, schedule, clipping, checkpoints and resume."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import SchedulerType

from embedline.config.training import Optimization
from embedline.errors import StepError

logger = logging.getLogger(__name__)

# One optimizer step: leave the gradients of a whole batch in the module's parameters, return the loss and
# metrics. The step runs its own backward, because GradCache needs two passes.
TrainStep = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
OnMetrics = Callable[[dict[str, float], int], None]

COMPLETE = "complete"
_SCHEDULES = {
    "linear": SchedulerType.LINEAR,
    "cosine": SchedulerType.COSINE,
    "constant": SchedulerType.CONSTANT_WITH_WARMUP,
    "warmup_stable_decay": SchedulerType.WARMUP_STABLE_DECAY,
}


def train(
    module: nn.Module,
    batches: Sequence[Any],
    step: TrainStep,
    optimization: Optimization,
    *,
    checkpoints: Path,
    seed: int,
    on_metrics: OnMetrics,
) -> None:
    """Train `module` in place, one optimizer step a batch; resume from the newest complete checkpoint.

    Args:
        batches: item i is the whole batch of step i, the same at every call; len(batches) steps are made.
        checkpoints: a folder of this training alone. The caller removes it when the result is safe.
        on_metrics: called with averages over `log_every` steps; after a resume, first with the history.

    Raises:
        StepError: the loss is not finite; the batch is saved in `checkpoints` for inspection.
    """
    set_seed(seed)
    checkpoints.mkdir(parents=True, exist_ok=True)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=len(batches),
        per_device_train_batch_size=1,
        learning_rate=optimization.learning_rate,
        lr_scheduler_type=_SCHEDULES[optimization.schedule],
        lr_scheduler_kwargs=_schedule_arguments(optimization, len(batches)),
        warmup_steps=math.ceil(optimization.warmup * len(batches)),
        weight_decay=optimization.weight_decay,
        adam_beta1=optimization.beta1,
        adam_beta2=optimization.beta2,
        adam_epsilon=optimization.epsilon,
        max_grad_norm=optimization.clip,
        logging_steps=optimization.log_every,
        logging_nan_inf_filter=False,
        save_steps=optimization.checkpoint_every,
        save_total_limit=2,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    progress = _Progress(len(batches), on_metrics)
    trainer = _StepTrainer(
        model=module,
        args=arguments,
        train_dataset=_Steps(batches),
        callbacks=[progress],
    )
    trainer.step, trainer.progress = step, progress
    trainer.remove_callback(_printer())
    trainer.train(resume_from_checkpoint=_newest_complete(checkpoints))


class _StepTrainer(Trainer):
    """A Trainer whose step is ours, and whose batches come in the order given."""

    step: TrainStep
    progress: _Progress

    def get_train_dataloader(self) -> DataLoader[Any]:
        steps: Any = self.train_dataset
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=lambda rows: rows[0])

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        model.train()
        loss, metrics = self.step(model, inputs["batch"])
        if not torch.isfinite(loss):
            _refuse(loss, inputs["batch"], self.state.global_step, Path(str(self.args.output_dir)))
        self.progress.add(metrics)
        return loss.detach()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Single numbers (a temperature) are gains, which weight decay is not for."""
        scalars = {name for name, parameter in model.named_parameters() if parameter.ndim == 0}
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if name not in scalars]


class _Steps(Dataset[Any]):
    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"batch": self.batches[index]}


class _Progress(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Tells metrics, marks complete checkpoints, prints a line now and then."""

    def __init__(self, steps: int, on_metrics: OnMetrics) -> None:
        self.steps, self.on_metrics = steps, on_metrics
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)  # not every step has every metric
        self.count = 0
        self.since = time.monotonic()

    def add(self, metrics: dict[str, float]) -> None:
        for key, value in metrics.items():
            self.sums[key] += value
            self.counts[key] += 1
        self.count += 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.since = time.monotonic()
        for entry in state.log_history:  # what was said before a kill, for a tracker that never heard it
            self._tell(dict(entry), int(entry.get("step", 0)))
        if state.global_step:
            print(f"resumed at step {state.global_step} of {self.steps}", flush=True)  # noqa: T201

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs or not self.count:
            return
        seconds = max(1e-9, time.monotonic() - self.since)
        tokens = self.sums.pop("tokens", 0.0)
        values = {key: total / self.counts[key] for key, total in self.sums.items()}
        values |= {key: float(logs[key]) for key in ("loss", "grad_norm", "learning_rate") if key in logs}
        values["tokens_per_second"] = tokens / seconds
        state.log_history[-1].update(values)  # so that a checkpoint carries everything that was told
        self._tell(values, state.global_step)
        done = f"step {state.global_step}/{self.steps}"
        print(  # noqa: T201
            f"{done} loss {values['loss']:.4f} {values['tokens_per_second']:,.0f} tokens/s", flush=True
        )
        self.sums.clear()
        self.counts.clear()
        self.count, self.since = 0, time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def _tell(self, values: dict[str, Any], step: int) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for name in ("step", "epoch", "total_flos", "train_runtime", "train_loss"):
            numbers.pop(name, None)
        if numbers:
            self.on_metrics(numbers, step)


def _newest_complete(checkpoints: Path) -> str | None:
    """The last checkpoint that was written to its end; what a kill left half-written is removed."""
    complete = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / COMPLETE).exists():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return str(max(complete, key=lambda folder: int(folder.name.split("-")[1]))) if complete else None


def _schedule_arguments(optimization: Optimization, steps: int) -> dict[str, Any]:
    if optimization.schedule == "warmup_stable_decay":
        return {"num_decay_steps": max(1, steps // 5)}
    return {}


def _refuse(loss: Tensor, batch: Any, step: int, folder: Path) -> None:
    path = folder / f"bad-batch-{step}.json"
    path.write_text(json.dumps(batch, default=str, ensure_ascii=False), encoding="utf-8")
    raise StepError(
        f"the loss became {loss.item()} at step {step}.",
        where="training",
        fix=f"Lower the learning rate, or use precision fp32; the batch is in {path}.",
    )


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback

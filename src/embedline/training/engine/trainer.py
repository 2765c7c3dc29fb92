"""The training engine: `transformers.Trainer` drives optimizer, schedule, clipping, checkpoints and resume.

Several processes: each runs a trainer of its own, without `DistributedDataParallel`. They exchange vectors
in the step, sum their gradients here, and decide together to skip a step, to repeat it, or to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SchedulerType

from embedline.config.training import Optimization
from embedline.errors import StepError, Stopped, first_line
from embedline.training.engine import processes
from embedline.training.engine.bad_batches import BadBatch, save_bad_batch
from embedline.training.engine.checkpoint_callback import CheckpointCallback, is_logged
from embedline.training.engine.checkpoints import newest_whole, require_disk_space, writing
from embedline.training.engine.progress import OnMetrics, Progress
from embedline.training.engine.sigterm import SigtermHandler
from embedline.training.engine.step_timer import Metrics, StepTimer
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.engine.token_rows import TokenRows

# One optimizer step: leave the gradients of a whole batch (of this process's share of it) in the module's
# parameters, return the loss and metrics. The step runs its own backward, because GradCache needs two passes.
TrainStep = Callable[[nn.Module, Any], tuple[Tensor, Metrics]]

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
    budget: TokenBudget | None = None,
    timer: StepTimer | None = None,
    bad_batches: Path | None = None,
    rows: TokenRows | None = None,
    before_step: Callable[[int], None] | None = None,
) -> None:
    """Train `module` in place, one optimizer step a batch; resume from the newest complete checkpoint.

    The randomness of step i follows from `seed` and i alone: a repeated step, in the same process or after a
    resume, draws the same.

    Args:
        batches: item i is the whole batch of step i, the same at every call; len(batches) steps are made.
        checkpoints: a folder of this training alone. The caller removes it when the result is safe.
        on_metrics: called with means over `log_every` steps, and with those since then at the last step;
            after a resume, first with the history.
        budget: bounds the step's chunks; halved when memory runs out.
        timer: the clocks that the step uses.
        bad_batches: the folder for batches whose loss or gradient is not finite; `checkpoints` when None.
        rows: trained in place of the token table; the batches then have `ids`, which hold all its tokens.
        before_step: called with the number of updates made so far; an error of it ends the training.

    Raises:
        StepError: more than `max_bad_steps` steps had no finite loss or gradient; a step does not fit into
            memory with the smallest chunks, or the rest of the training does not; a checkpoint cannot be
            written.
        Stopped: SIGTERM; a checkpoint was written.
    """
    set_seed(seed)
    checkpoints.mkdir(parents=True, exist_ok=True)
    processes.broadcast_weights(module)
    timer = timer or StepTimer()
    timer.start()
    progress = Progress(len(batches), on_metrics, timer, silent=not processes.is_first())
    with SigtermHandler() as sigterm, progress, rows or nullcontext():
        callback = CheckpointCallback(progress, sigterm, budget)
        trainer = _StepTrainer(
            module,
            _arguments(optimization, len(batches), checkpoints, seed),
            batches,
            step=step,
            progress=progress,
            callback=callback,
            timer=timer,
            max_bad_steps=optimization.max_bad_steps,
            bad_batches=bad_batches or checkpoints,
            rows=rows,
            before_step=before_step,
        )
        checkpoint = processes.broadcast(newest_whole(checkpoints) if processes.is_first() else None)
        if checkpoint is not None:
            callback.restore(checkpoint)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Exception as error:
            if not processes.is_out_of_memory(error):
                raise
            # Outside a step, which would be repeated with smaller chunks: these do not help here.
            raise StepError(
                f"memory ran out after step {trainer.state.global_step}, beside the work of a step "
                f"({first_line(error)}): the model, its gradients and two moments do not fit.",
                where="training",
                fix="Use a machine with more memory, a smaller model, or model.lora.",
            ) from error
    if sigterm.received or callback.stopped_at is not None:
        raise Stopped(
            f"stopped by SIGTERM after step {trainer.state.global_step} of {len(batches)}; "
            "a checkpoint is kept, the next try goes on from it."
        )


def _arguments(optimization: Optimization, steps: int, checkpoints: Path, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=optimization.learning_rate,
        lr_scheduler_type=_SCHEDULES[optimization.schedule],
        lr_scheduler_kwargs=_schedule_arguments(optimization, steps),
        warmup_steps=math.ceil(optimization.warmup * steps),
        weight_decay=optimization.weight_decay,
        adam_beta1=optimization.beta1,
        adam_beta2=optimization.beta2,
        adam_epsilon=optimization.epsilon,
        max_grad_norm=optimization.clip,
        logging_steps=optimization.log_every,
        logging_nan_inf_filter=False,
        save_steps=optimization.checkpoint_every,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )


def _schedule_arguments(optimization: Optimization, steps: int) -> dict[str, Any]:
    if optimization.schedule == "warmup_stable_decay":
        return {"num_decay_steps": max(1, math.floor(steps * optimization.decay))}
    return {}


class _StepTrainer(Trainer):
    """A `Trainer` that makes the given step on the given batches, in their order."""

    def __init__(
        self,
        module: nn.Module,
        arguments: TrainingArguments,
        batches: Sequence[Any],
        *,
        step: TrainStep,
        progress: Progress,
        callback: CheckpointCallback,
        timer: StepTimer,
        max_bad_steps: int,
        bad_batches: Path,
        rows: TokenRows | None,
        before_step: Callable[[int], None] | None,
    ) -> None:
        super().__init__(
            model=module, args=arguments, train_dataset=_Steps(batches), callbacks=[progress, callback]
        )
        self.remove_callback(PrinterCallback)
        self.step, self.progress, self.callback, self.timer = step, progress, callback, timer
        self.max_bad_steps, self.bad_batches, self.rows = max_bad_steps, bad_batches, rows
        self.before_step = before_step

    def create_optimizer(self, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = super().create_optimizer(*arguments, **named)
        if self.rows is not None:
            self.rows.bind(optimizer)
        return optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        steps: Any = self.train_dataset
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=lambda rows: rows[0])

    def get_batch_samples(self, *arguments: Any, **named: Any) -> tuple[list[Any], Tensor | int | None]:
        with self.timer.phase("data"):
            samples: tuple[list[Any], Tensor | int | None] = super().get_batch_samples(*arguments, **named)
        return samples

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute the gradients of one batch and check them; return 0, because `Progress` logs the loss."""
        if self.before_step is not None:
            self.before_step(self.state.global_step)
        model.train()
        loss, metrics = self._step_within_memory(model, inputs["batch"])
        processes.sum_gradients(model)
        # Both at once: the one time in a step that waits for a GPU. A bad step must not reach the weights.
        value, norm = torch.stack([loss.double(), _gradient_norm(model, loss.device)]).tolist()
        if processes.any_of(not (math.isfinite(value) and math.isfinite(norm))):
            self._skip(model, inputs["batch"], value, norm)
        else:
            self.progress.add({**metrics, "loss": value, "padded_tokens": self.timer.padded_tokens})
        self.timer.enter("optimizer")  # until `CheckpointCallback.on_optimizer_step`
        return torch.zeros((), device=loss.device)  # `Progress` logs the mean loss

    def _step_within_memory(self, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """Make the step; when memory runs out, repeat it from its start in chunks of half the size."""
        while True:
            _seed(int(self.args.seed), self.state.global_step)
            self.timer.begin(log_due=is_logged(self.state.global_step + 1, self.args))
            message = ""
            if self.rows is not None:
                with self.timer.phase("optimizer"):  # it makes the updates that the rows are due
                    self.rows.select(batch.ids)
            try:
                return processes.run_in_lockstep(lambda: self.step(model, batch))
            except processes.OutOfMemory as error:
                message = str(error)
            model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.callback.shrink(self.state.global_step, message)

    def _skip(self, model: nn.Module, batch: Any, loss: float, norm: float) -> None:
        """Drop the gradients: without them the optimizer leaves parameters and moments as they are."""
        bad = BadBatch(self.bad_batches, "")
        if processes.is_first():
            bad = save_bad_batch(
                self.bad_batches, batch, self.state.global_step, loss=loss, gradient_norm=norm, module=model
            )
        bad = processes.broadcast(bad)
        model.zero_grad(set_to_none=True)
        self.callback.bad_steps += 1
        limit = self.max_bad_steps
        if self.callback.bad_steps > limit:
            raise StepError(
                f"{bad.message}; that is the limit of {limit} skipped steps." if limit else f"{bad.message}.",
                where="training",
                fix=f"Lower the learning rate, or use precision fp32; the batch is in {bad.path}.",
            )
        self.progress.report(
            f"{bad.message}; step skipped ({self.callback.bad_steps} of at most {limit}), the batch is in "
            f"{bad.path}"
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if processes.is_first():
            if self.rows is not None:
                self.rows.settle()
            folder = Path(str(self.args.output_dir))
            require_disk_space(folder, model)
            with writing(folder / f"checkpoint-{self.state.global_step}"):
                super()._save_checkpoint(model, trial)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Leave out single numbers (a temperature): they are gains, which weight decay is not for."""
        scalars = {name for name, parameter in model.named_parameters() if parameter.ndim == 0}
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if name not in scalars]


class _Steps(Dataset[Any]):
    """The batches as a dataset: one item a step."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"batch": self.batches[index]}


def _seed(seed: int, step: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))


def _gradient_norm(module: nn.Module, device: torch.device) -> Tensor:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    return norm.to(device, torch.float64)

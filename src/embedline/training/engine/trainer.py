"""The one engine: `transformers.Trainer` drives optimizer, schedule, clipping, checkpoints and resume.

Several processes: each runs a trainer that knows of no other. What they share is in the step (its vectors),
in the gradients (summed here) and in what they decide together: to skip a step, to redo it, to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import SchedulerType

from embedline.config.training import Optimization
from embedline.errors import StepError, Stopped, first_line
from embedline.training.contrastive.gradcache import TokenBudget
from embedline.training.engine import processes
from embedline.training.engine.bad_batches import keep_evidence
from embedline.training.engine.checkpoint_callback import Keeper, is_logged
from embedline.training.engine.checkpoints import newest_whole, require_room, writing
from embedline.training.engine.progress import OnMetrics, Progress
from embedline.training.engine.sigterm import Stopping
from embedline.training.engine.step_timer import Metrics, Watch

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
    watch: Watch | None = None,
    evidence: Path | None = None,
) -> None:
    """Train `module` in place, one optimizer step a batch; resume from the newest whole checkpoint.

    The randomness of step i follows from `seed` and i alone: a step done again, in the same process or after
    a resume, draws the same.

    Args:
        batches: item i is the whole batch of step i, the same at every call; len(batches) steps are made.
        checkpoints: a folder of this training alone. The caller removes it when the result is safe.
        on_metrics: called with averages over `log_every` steps, and those since then at the last; after a
            resume, first with the history.
        budget: what the step cuts its chunks by; halved when memory runs out.
        watch: what the step measures itself with.
        evidence: where batches are saved whose loss or gradient is not finite; `checkpoints` when None.

    Raises:
        StepError: more than `max_bad_steps` steps had no finite loss or gradient; a step does not fit into
            memory however small its chunks, or what is beside it; a checkpoint cannot be written.
        Stopped: SIGTERM; a checkpoint was written.
    """
    set_seed(seed)
    checkpoints.mkdir(parents=True, exist_ok=True)
    processes.same_weights(module)
    watch = watch or Watch()
    watch.start()
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
        seed=seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    progress = Progress(len(batches), on_metrics, watch, silent=not processes.is_first())
    with Stopping() as stopping, progress:
        keeper = Keeper(progress, stopping, budget)
        trainer = _StepTrainer(
            model=module,
            args=arguments,
            train_dataset=_Steps(batches),
            callbacks=[progress, keeper],
        )
        trainer.step, trainer.keeper, trainer.limit = step, keeper, optimization.max_bad_steps
        trainer.watch = watch
        trainer.evidence = evidence or checkpoints
        trainer.remove_callback(_printer())
        whole = processes.told(newest_whole(checkpoints) if processes.is_first() else None)
        if whole is not None:
            keeper.restore(whole)
        try:
            trainer.train(resume_from_checkpoint=str(whole) if whole else None)
        except Exception as error:
            if not processes.is_out_of_memory(error):
                raise
            # Not in a step: that one would have been done again. Smaller chunks do not help here.
            raise StepError(
                f"memory ran out after step {trainer.state.global_step}, beside the work of a step "
                f"({first_line(error)}): the model, its gradients and two moments do not fit.",
                where="training",
                fix="Use a machine with more memory, a smaller model, or model.lora.",
            ) from error
    if stopping.asked or keeper.stopped_at is not None:
        raise Stopped(
            f"stopped by SIGTERM after step {trainer.state.global_step} of {len(batches)}; "
            "a checkpoint is kept, the next try goes on from it."
        )


class _StepTrainer(Trainer):
    """A Trainer whose step is ours, and whose batches come in the order given."""

    step: TrainStep
    keeper: Keeper
    watch: Watch
    limit: int
    evidence: Path

    def get_train_dataloader(self) -> DataLoader[Any]:
        steps: Any = self.train_dataset
        return DataLoader(steps, batch_size=1, shuffle=False, collate_fn=lambda rows: rows[0])

    def get_batch_samples(self, *arguments: Any, **named: Any) -> tuple[list[Any], Tensor | int | None]:
        with self.watch.phase("data"):
            found: tuple[list[Any], Tensor | int | None] = super().get_batch_samples(*arguments, **named)
        return found

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        model.train()
        loss, metrics = self._fitting(model, inputs["batch"])
        processes.sum_gradients(model)
        # Both at once: the one time in a step that a GPU is waited for. A bad step may not reach the weights.
        value, norm = torch.stack([loss.double(), _gradient_norm(model, loss.device)]).tolist()
        if processes.any_of(not (math.isfinite(value) and math.isfinite(norm))):
            self._skip(model, inputs["batch"], value, norm)
        else:
            self.keeper.progress.add({**metrics, "loss": value, "padded_tokens": self.watch.padded})
        self.watch.enter("optimizer")  # until `Keeper.on_optimizer_step`
        return torch.zeros((), device=loss.device)  # the mean loss is told by `Progress`

    def _fitting(self, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """The step; where memory runs out, the same again from its start in chunks of half the size."""
        while True:
            _seed(int(self.args.seed), self.state.global_step)
            self.watch.begin(due=is_logged(self.state.global_step + 1, self.args))
            words = ""
            try:
                return processes.agreed(lambda: self.step(model, batch))
            except processes.OutOfMemory as error:
                words = str(error)
            model.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.keeper.shrink(self.state.global_step, words)

    def _skip(self, model: nn.Module, batch: Any, loss: float, norm: float) -> None:
        """Without gradients the optimizer leaves parameters and moments as they are."""
        words, path = "", self.evidence
        if processes.is_first():
            path, words = keep_evidence(
                self.evidence, batch, self.state.global_step, loss=loss, gradient_norm=norm, module=model
            )
        path, words = processes.told((path, words))
        model.zero_grad(set_to_none=True)
        self.keeper.bad_steps += 1
        if self.keeper.bad_steps > self.limit:
            raise StepError(
                f"{words}; that is the limit of {self.limit} skipped steps." if self.limit else f"{words}.",
                where="training",
                fix=f"Lower the learning rate, or use precision fp32; the batch is in {path}.",
            )
        self.keeper.progress.say(
            f"{words}; step skipped ({self.keeper.bad_steps} of at most {self.limit}), the batch is in {path}"
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if processes.is_first():
            folder = Path(str(self.args.output_dir))
            require_room(folder, model)
            with writing(folder / f"checkpoint-{self.state.global_step}"):
                super()._save_checkpoint(model, trial)

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


def _seed(seed: int, step: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))


def _gradient_norm(module: nn.Module, device: torch.device) -> Tensor:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
    return norm.to(device, torch.float64)


def _schedule_arguments(optimization: Optimization, steps: int) -> dict[str, Any]:
    if optimization.schedule == "warmup_stable_decay":
        return {"num_decay_steps": max(1, steps // 5)}
    return {}


def _printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback

"""The callback around the steps of a training: complete its checkpoints, log in time, stop on SIGTERM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedline.errors import StepError
from embedline.training.engine import processes
from embedline.training.engine.checkpoints import (
    TrainingProgress,
    mark_complete,
    read_progress,
    remove_old,
    write_progress,
    writing,
)
from embedline.training.engine.progress import Progress
from embedline.training.engine.sigterm import SigtermHandler
from embedline.training.engine.token_budget import TokenBudget


def is_logged(step: int, args: TrainingArguments) -> bool:
    """Return whether metrics are logged after so many steps: each `logging_steps`, and after the last one."""
    return step % int(args.logging_steps) == 0 or step == args.max_steps


class CheckpointCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """The callback that completes a checkpoint with what the trainer does not save, and stops on SIGTERM."""

    def __init__(self, progress: Progress, sigterm: SigtermHandler, budget: TokenBudget | None) -> None:
        self.progress, self.sigterm, self.budget = progress, sigterm, budget
        self.bad_steps = 0
        self.stopped_at: int | None = None

    def restore(self, checkpoint: Path) -> None:
        """Read back what `on_save` added to a checkpoint."""
        saved = read_progress(checkpoint)
        self.progress.restore(saved.metrics)
        self.bad_steps = saved.bad_steps
        if self.budget is not None and saved.budget:
            self.budget.chunk, resident = saved.budget
            if self.budget.resident is not None:  # else it is measured on this machine
                self.budget.resident = resident

    def shrink(self, step: int, message: str) -> None:
        """Halve the token budget after a lack of memory.

        Raises:
            StepError: there is no budget, or it cannot get smaller.
        """
        if self.budget is None or not self.budget.halve():
            raise StepError(
                f"step {step} does not fit into memory ({message}).",
                where="training",
                fix="Lower the stage's batch or its lengths, or use a machine with more memory.",
            )
        self.progress.report(
            f"out of memory at step {step} ({message}): repeated with batch_tokens {self.budget.chunk}, "
            "which later steps keep"
        )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.timer.leave()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Request the logging of the step; after a SIGTERM in any process, a checkpoint and the end."""
        control.should_log = is_logged(state.global_step, args)
        if processes.any_of(self.sigterm.received):
            control.should_save = control.should_training_stop = True
            self.stopped_at = state.global_step

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Complete the checkpoint in the first process, and remove old ones."""
        if not processes.is_first():
            return
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        budget = (self.budget.chunk, self.budget.resident) if self.budget else None
        with writing(checkpoint):
            write_progress(checkpoint, TrainingProgress(self.progress.state(), self.bad_steps, budget))
            mark_complete(checkpoint)
            remove_old(checkpoint.parent)

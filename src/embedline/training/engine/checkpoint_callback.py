"""What a training does around its steps: what a checkpoint keeps, when a line is due, when to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedline.errors import StepError
from embedline.training.contrastive.gradcache import TokenBudget
from embedline.training.engine import processes
from embedline.training.engine.checkpoints import (
    mark_complete,
    read_progress,
    remove_old,
    write_progress,
    writing,
)
from embedline.training.engine.progress import Progress
from embedline.training.engine.sigterm import Stopping


def is_logged(step: int, args: TrainingArguments) -> bool:
    """Whether a line is told after so many steps: each `logging_steps`, and after the last one."""
    return step % int(args.logging_steps) == 0 or step == args.max_steps


class Keeper(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Keeps with a checkpoint what the trainer does not, marks it complete; ends a training when asked."""

    def __init__(self, progress: Progress, stopping: Stopping, budget: TokenBudget | None) -> None:
        self.progress, self.stopping, self.budget = progress, stopping, budget
        self.bad_steps = 0
        self.stopped_at: int | None = None

    def restore(self, checkpoint: Path) -> None:
        kept = read_progress(checkpoint)
        self.progress.restore(kept["metrics"])
        self.bad_steps = kept["bad_steps"]
        if self.budget is not None and kept["budget"]:
            self.budget.chunk, resident = kept["budget"]
            if self.budget.resident is not None:  # else this machine's memory tells
                self.budget.resident = resident

    def shrink(self, step: int, words: str) -> None:
        """Halve the token budget, or give up."""
        if self.budget is None or not self.budget.halve():
            raise StepError(
                f"step {step} does not fit into memory ({words}).",
                where="training",
                fix="Lower the stage's batch or its lengths, or use a machine with more memory.",
            )
        self.progress.say(
            f"out of memory at step {step} ({words}): done again with batch_tokens {self.budget.chunk}, "
            "and so from here on"
        )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.progress.watch.leave()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        control.should_log = is_logged(state.global_step, args)
        if processes.any_of(self.stopping.asked):
            control.should_save = control.should_training_stop = True
            self.stopped_at = state.global_step

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not processes.is_first():
            return
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        budget = [self.budget.chunk, self.budget.resident] if self.budget else None
        kept = {"metrics": self.progress.state(), "bad_steps": self.bad_steps, "budget": budget}
        with writing(checkpoint):
            write_progress(checkpoint, kept)
            mark_complete(checkpoint)
            remove_old(checkpoint.parent)

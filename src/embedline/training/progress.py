"""What a training tells while it works: means over the logged steps, and a line now and then."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

OnMetrics = Callable[[dict[str, float], int], None]


class Progress(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Gathers the steps' metrics and tells their means; only the first process says anything.

    Sums that no line has told yet travel in a checkpoint, so that a resumed training tells the same.
    """

    def __init__(self, steps: int, on_metrics: OnMetrics, *, silent: bool) -> None:
        self.steps, self.on_metrics, self.silent = steps, on_metrics, silent
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)  # not every step has every metric
        self.since = time.monotonic()
        self.tokens = 0.0  # since the last line in this process: what its speed is made of

    def add(self, metrics: dict[str, float]) -> None:
        """The metrics of one step; `tokens` is what it read."""
        for key, value in metrics.items():
            if key == "tokens":
                self.tokens += value
                continue
            self.sums[key] += value
            self.counts[key] += 1

    def state(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.since = time.monotonic()
        for entry in state.log_history:  # what was said before a kill, for a tracker that never heard it
            self._tell(dict(entry), int(entry.get("step", 0)))
        if state.global_step:
            self.say(f"resumed at step {state.global_step} of {self.steps}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        state.log_history[-1].pop("loss")  # the trainer's own, which knows nothing of skipped steps
        values = {key: total / self.counts[key] for key, total in self.sums.items()}
        values |= {key: float(logs[key]) for key in ("grad_norm", "learning_rate") if key in logs}
        values["tokens_per_second"] = self.tokens / max(1e-9, time.monotonic() - self.since)
        state.log_history[-1].update(values)  # so that a checkpoint carries everything that was told
        self._tell(values, state.global_step)
        loss = f"loss {values['loss']:.4f} " if "loss" in values else ""
        self.say(f"step {state.global_step}/{self.steps} {loss}{values['tokens_per_second']:,.0f} tokens/s")
        self.sums.clear()
        self.counts.clear()
        self.tokens, self.since = 0.0, time.monotonic()

    def say(self, words: str) -> None:
        if not self.silent:
            print(words, flush=True)  # noqa: T201

    def _tell(self, values: dict[str, Any], step: int) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for name in ("step", "epoch", "total_flos", "train_runtime", "train_loss"):
            numbers.pop(name, None)
        if numbers and not self.silent:
            self.on_metrics(numbers, step)

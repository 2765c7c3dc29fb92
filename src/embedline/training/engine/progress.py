"""Metrics of a running training: means over the logged steps, for the tracker and as one line of text."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedline.training.engine import processes
from embedline.training.engine.curves import PHASES, line
from embedline.training.engine.step_timer import Metrics, StepTimer

OnMetrics = Callable[[dict[str, float], int], None]

_REDRAW_S = 0.5
_TOKENS = ("tokens", "padded_tokens")


class Progress(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """The callback that sums the steps' metrics and logs their means, in the first process only.

    Sums that are not logged yet are saved in a checkpoint, so that a resumed training logs the same means.
    Entered on a terminal, it keeps one live line there; elsewhere it prints a line each time.
    """

    def __init__(self, steps: int, on_metrics: OnMetrics, timer: StepTimer, *, silent: bool) -> None:
        self.steps, self.on_metrics, self.timer, self.silent = steps, on_metrics, timer, silent
        self.sums: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)  # not every step has every metric
        self.began = self.since = time.monotonic()
        self.first = self.last = 0  # the steps that this process began with, and logged last
        # Since the last logged step, in this process: the numerators of its speeds.
        self.tokens: dict[str, float] = dict.fromkeys(_TOKENS, 0.0)
        self.logged: dict[str, float] = {}
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        # FORCE_COLOR makes a log file a terminal to rich.
        if sys.stdout.isatty() and self._console.is_terminal and not self.silent:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of a step: `tokens` are those of the batch, `padded_tokens` those encoded here."""
        for key, value in metrics.items():
            if key in _TOKENS:
                self.tokens[key] += float(value)
                continue
            # Summed on their device, in double precision, which a checkpoint saves exactly.
            self.sums[key] += value.detach().double() if isinstance(value, Tensor) else value
            self.counts[key] += 1

    def state(self) -> dict[str, Any]:
        """Return the sums since the last logged step, for a checkpoint."""
        return {"sums": {key: float(value) for key, value in self.sums.items()}, "counts": dict(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from the sums of a checkpoint."""
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Send what was logged before a kill once more, and start the clocks."""
        for entry in state.log_history:  # logged before a kill: the tracker may lack it
            self._send(dict(entry), int(entry.get("step", 0)))
        if state.global_step:
            self.report(f"resumed at step {state.global_step} of {self.steps}")
        self.first = self.last = state.global_step
        self.began = self.since = time.monotonic()
        self.timer.seconds()  # drops what was measured before

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._live is not None and time.monotonic() - self._drawn >= _REDRAW_S:
            self._draw(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Log the means of the steps since the last entry."""
        if logs is None or "loss" not in logs:
            return
        with self.timer.phase("logging"):
            self._log(state, logs)

    def _log(self, state: TrainerState, logs: dict[str, Any]) -> None:
        state.log_history[-1].pop("loss")  # the trainer's own, which counts skipped steps
        values = {key: float(total) / self.counts[key] for key, total in self.sums.items()}
        values |= {key: float(logs[key]) for key in ("grad_norm", "learning_rate") if key in logs}
        values |= self._speed(state.global_step)
        state.log_history[-1].update(values)  # so that a checkpoint holds the whole history
        self._send(values, state.global_step)
        if self._live is None:
            self.report(line(values, state.global_step, self.steps))
        else:
            self._draw(state.global_step)
        self.sums.clear()
        self.counts.clear()

    def _speed(self, step: int) -> dict[str, float]:
        """Measure the steps since the last logged one; all processes call this at the same step."""
        now = time.monotonic()
        steps, seconds = step - self.last, max(1e-9, now - self.since)
        spent = self.timer.seconds()
        mine = [self.tokens["padded_tokens"], *(spent[phase] for phase in PHASES)]
        padded_tokens, *spent_s = processes.sum_over_processes(
            torch.tensor(mine, dtype=torch.float64, device=processes.device())
        ).tolist()
        values = {"tokens_per_second": self.tokens["tokens"] / seconds}
        if padded_tokens:
            values["padded_tokens_per_second"] = padded_tokens / seconds
            values["padding_share"] = 1 - self.tokens["tokens"] / padded_tokens
        if (share := self.timer.share_of_peak(values["tokens_per_second"])) is not None:
            values["share_of_peak"] = share
        values["step_seconds"] = seconds / steps
        for phase, summed in zip(PHASES, spent_s, strict=True):
            values[f"{phase}_seconds"] = summed / processes.world_size() / steps
        values["eta_seconds"] = (self.steps - step) * (now - self.began) / (step - self.first)
        self.tokens = dict.fromkeys(_TOKENS, 0.0)
        self.since, self.last = now, step
        return values

    def report(self, message: str) -> None:
        """Print a line to the standard output; above the live line where there is one."""
        if not self.silent:
            self._console.print(message, soft_wrap=True)

    def _draw(self, step: int) -> None:
        assert self._live is not None
        self._drawn = time.monotonic()
        self._live.update(
            Text(line(self.logged, step, self.steps), no_wrap=True, overflow="ellipsis"), refresh=True
        )

    def _send(self, values: dict[str, Any], step: int) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for name in ("step", "epoch", "total_flos", "train_runtime", "train_loss"):
            numbers.pop(name, None)
        if numbers and not self.silent:
            self.logged = numbers
            self.on_metrics(numbers, step)

"""What a training tells while it works: means over the logged steps, and a line now and then."""

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
from embedline.training.engine.step_timer import Metrics, Watch

OnMetrics = Callable[[dict[str, float], int], None]

_REDRAW_S = 0.5
_TOKENS = ("tokens", "padded_tokens")


class Progress(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Gathers the steps' metrics and tells their means; only the first process says anything.

    Sums that no line has told yet travel in a checkpoint, so that a resumed training tells the same. Entered
    on a terminal, it keeps one live line there; elsewhere each line is printed.
    """

    def __init__(self, steps: int, on_metrics: OnMetrics, watch: Watch, *, silent: bool) -> None:
        self.steps, self.on_metrics, self.watch, self.silent = steps, on_metrics, watch, silent
        self.sums: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)  # not every step has every metric
        self.began = self.since = time.monotonic()
        self.first = self.last = 0  # the steps that this process began with, and told last
        # Since the last line, in this process: what its speed is made of.
        self.tokens: dict[str, float] = dict.fromkeys(_TOKENS, 0.0)
        self.told: dict[str, float] = {}
        self._console = Console(highlight=False, markup=False)
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
        """The metrics of one step; `tokens` is what it read, `padded_tokens` what this process encoded."""
        for key, value in metrics.items():
            if key in _TOKENS:
                self.tokens[key] += float(value)
                continue
            # Added up where they are, in a precision in which a checkpoint loses nothing.
            self.sums[key] += value.detach().double() if isinstance(value, Tensor) else value
            self.counts[key] += 1

    def state(self) -> dict[str, Any]:
        return {"sums": {key: float(value) for key, value in self.sums.items()}, "counts": dict(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for entry in state.log_history:  # what was said before a kill, for a tracker that never heard it
            self._tell(dict(entry), int(entry.get("step", 0)))
        if state.global_step:
            self.say(f"resumed at step {state.global_step} of {self.steps}")
        self.first = self.last = state.global_step
        self.began = self.since = time.monotonic()
        self.watch.seconds()  # what was before does not count

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
        if logs is None or "loss" not in logs:
            return
        with self.watch.phase("logging"):
            self._log(state, logs)

    def _log(self, state: TrainerState, logs: dict[str, Any]) -> None:
        state.log_history[-1].pop("loss")  # the trainer's own, which knows nothing of skipped steps
        values = {key: float(total) / self.counts[key] for key, total in self.sums.items()}
        values |= {key: float(logs[key]) for key in ("grad_norm", "learning_rate") if key in logs}
        values |= self._speed(state.global_step)
        state.log_history[-1].update(values)  # so that a checkpoint carries everything that was told
        self._tell(values, state.global_step)
        if self._live is None:
            self.say(line(values, state.global_step, self.steps))
        else:
            self._draw(state.global_step)
        self.sums.clear()
        self.counts.clear()

    def _speed(self, step: int) -> dict[str, float]:
        """What the clock says of the steps since the last line; asked by all processes at the same step."""
        now = time.monotonic()
        steps, seconds = step - self.last, max(1e-9, now - self.since)
        spent = self.watch.seconds()
        mine = [self.tokens["padded_tokens"], *(spent[phase] for phase in PHASES)]
        padded, *spent_s = processes.total(
            torch.tensor(mine, dtype=torch.float64, device=processes.device())
        ).tolist()
        values = {"tokens_per_second": self.tokens["tokens"] / seconds}
        if padded:
            values["padded_tokens_per_second"] = padded / seconds
            values["padding_share"] = 1 - self.tokens["tokens"] / padded
        if (share := self.watch.share_of_peak(values["tokens_per_second"])) is not None:
            values["share_of_peak"] = share
        values["step_seconds"] = seconds / steps
        for phase, summed in zip(PHASES, spent_s, strict=True):
            values[f"{phase}_seconds"] = summed / processes.count() / steps
        values["eta_seconds"] = (self.steps - step) * (now - self.began) / (step - self.first)
        self.tokens = dict.fromkeys(_TOKENS, 0.0)
        self.since, self.last = now, step
        return values

    def say(self, words: str) -> None:
        """Print it; above the live line where there is one."""
        if self.silent:
            return
        if self._live is not None:
            self._console.print(words, soft_wrap=True)
        else:
            print(words, flush=True)  # noqa: T201

    def _draw(self, step: int) -> None:
        assert self._live is not None
        self._drawn = time.monotonic()
        self._live.update(
            Text(line(self.told, step, self.steps), no_wrap=True, overflow="ellipsis"), refresh=True
        )

    def _tell(self, values: dict[str, Any], step: int) -> None:
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        for name in ("step", "epoch", "total_flos", "train_runtime", "train_loss"):
            numbers.pop(name, None)
        if numbers and not self.silent:
            self.told = numbers
            self.on_metrics(numbers, step)

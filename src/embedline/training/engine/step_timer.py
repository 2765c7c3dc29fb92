"""The times of a training step's phases, and its speed as a share of the device's peak."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedline.training.engine import processes
from embedline.training.engine.curves import PHASES
from embedline.training.engine.flops import non_embedding_parameters, peak_flops

# Numbers of a step by name. Tensors stay on their device until they are logged: reading one waits for a GPU.
Metrics = dict[str, Tensor | float]


class StepTimer:
    """The clocks shared by a training's engine, its step and its encoder.

    Phases do not overlap: an inner phase stops the outer one's clock. On a GPU time is measured by events
    among the kernels, which are read after they have passed, so that nothing waits for the device.

    Args:
        model: the model whose work is compared with the peak; without it `share_of_peak` returns None.
        bf16: whether that work is done in bf16.
        operations: of one weight and token: 6, or 2 where there is no backward pass.

    Attributes:
        log_due: whether this process computes the expensive metrics of the current step; of several
            processes, the first one does.
        padded_tokens: tokens that this process encoded in the current step, padding included.
    """

    def __init__(self, model: nn.Module | None = None, *, bf16: bool = False, operations: int = 6) -> None:
        self.model, self.bf16, self.operations = model, bf16, operations
        self.parameters = non_embedding_parameters(model) if model is not None else 0
        self.peak_flops = 0.0
        self.log_due = True
        self.padded_tokens = 0
        self._open: list[str] = []
        self._since: Any = None
        self._spans: list[tuple[str, Any, Any]] = []
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._events = torch.cuda.is_available()

    def start(self) -> None:
        """Measure the peak of all processes while all of them work, as they do in training."""
        if self.model is not None:
            device = next(self.model.parameters()).device
            peak = peak_flops(device, bf16=self.bf16)
            self.peak_flops = float(
                processes.sum_over_processes(torch.tensor(peak, dtype=torch.float64, device=device))
            )

    def begin(self, *, log_due: bool) -> None:
        """Begin a step, or repeat it from its start."""
        self.log_due, self.padded_tokens = log_due and processes.is_first(), 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the body as the phase's."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Begin a phase that `leave` ends, where both are in different functions."""
        self._cut()
        self._open.append(name)

    def leave(self) -> None:
        """End the phase that was entered last."""
        self._cut()
        self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Return each phase's seconds in this process since the last call."""
        self._cut()
        self._add_up(wait=True)
        spent, self._spent = self._spent, dict.fromkeys(PHASES, 0.0)
        return spent

    def share_of_peak(self, tokens_per_second: float) -> float | None:
        """Return operations × parameters × tokens a second / peak; None where no model was given."""
        return (
            self.operations * self.parameters * tokens_per_second / self.peak_flops
            if self.peak_flops
            else None
        )

    def _cut(self) -> None:
        now = self._now()
        if self._open:
            self._spans.append((self._open[-1], self._since, now))
        self._since = now
        self._add_up(wait=False)

    def _now(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _add_up(self, *, wait: bool) -> None:
        """Add up the spans that have ended; on a GPU some may not have yet."""
        done = 0
        for name, start, end in self._spans:
            if self._events:
                if wait:
                    end.synchronize()
                elif not end.query():
                    break
                self._spent[name] += start.elapsed_time(end) / 1000
            else:
                self._spent[name] += end - start
            done += 1
        del self._spans[:done]

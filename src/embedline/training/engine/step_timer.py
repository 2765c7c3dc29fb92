"""What a training measures of itself: where a step's time goes, and what share of the peak that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedline.training.engine import processes
from embedline.training.engine.curves import PHASES
from embedline.training.engine.flops import matrix_product_peak, non_embedding_parameters

# Numbers of a step by name. Tensors stay where they are until a line is told: asking a GPU for a number waits
# for it.
Metrics = dict[str, Tensor | float]


class Watch:
    """Shared by a training's engine, its step and what encodes for it.

    Phases do not overlap: one inside another stops the other's clock. On a GPU the clock is made of events
    among the kernels, which are read when they have passed anyway, so that nothing waits for the device.

    Args:
        model: whose work is told as a share of the peak; without it no share is told.
        bf16: the precision of that work.

    Attributes:
        due: what is expensive to know is wanted of the step that is made now. Of several processes, the
            first one finds it out.
        padded: tokens that the model of this process went through in this step, padding included.
    """

    def __init__(self, model: nn.Module | None = None, *, bf16: bool = False) -> None:
        self.model, self.bf16 = model, bf16
        self.parameters = non_embedding_parameters(model) if model is not None else 0
        self.peak = 0.0
        self.due = True
        self.padded = 0
        self._open: list[str] = []
        self._since: Any = None
        self._spans: list[tuple[str, Any, Any]] = []
        self._spent = dict.fromkeys(PHASES, 0.0)
        self._events = torch.cuda.is_available()

    def start(self) -> None:
        """Measure the peak of all processes together: they work at the same time then, too."""
        if self.model is not None:
            device = next(self.model.parameters()).device
            peak = matrix_product_peak(device, bf16=self.bf16)
            self.peak = float(processes.total(torch.tensor(peak, dtype=torch.float64, device=device)))

    def begin(self, *, due: bool) -> None:
        """A step begins, or begins again."""
        self.due, self.padded = due and processes.is_first(), 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done in it is that phase's time."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """As `phase`, where begin and end are in different places."""
        self._cut()
        self._open.append(name)

    def leave(self) -> None:
        self._cut()
        self._open.pop()

    def seconds(self) -> dict[str, float]:
        """Of each phase in this process since the last call."""
        self._cut()
        self._add_up(wait=True)
        spent, self._spent = self._spent, dict.fromkeys(PHASES, 0.0)
        return spent

    def share_of_peak(self, tokens_per_second: float) -> float | None:
        """None where no model was given."""
        return 6 * self.parameters * tokens_per_second / self.peak if self.peak else None

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
        """Spans that have ended; on a GPU some may not have yet."""
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

"""What a person sees while the line runs: a line a step, and on a terminal what goes on now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.record import StepRecord
from embedline.artifacts.tracker import SPOOL, read_spool

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

HEARTBEAT_S = 30.0
_MARKS = {"done": "✓", "failed": "✗", "killed": "✗"}


class Progress:
    """Prints each step once it has ended; a spinner on a terminal, a line every half minute elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: set[tuple[str, float]] = set()  # a retried step has ended more than once
        self._beat = time.monotonic()
        self._status: Status | None = None

    def __call__(self, run_folder: Path, records: Sequence[StepRecord]) -> None:
        for record in records:
            ended = record.step, record.started_at
            if record.status != "running" and ended not in self._told:
                self._told.add(ended)
                self._beat = time.monotonic()
                self._console.print(step_line(record), highlight=False, markup=False)
        running = next((record for record in records if record.status == "running"), None)
        if self._console.is_terminal:
            self._spin(run_folder, running)
        elif running is not None and time.monotonic() - self._beat >= HEARTBEAT_S:
            self._beat = time.monotonic()
            self._console.print(f"  {_now(run_folder, running)}", highlight=False, markup=False)

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _spin(self, run_folder: Path, running: StepRecord | None) -> None:
        text = _now(run_folder, running) if running else "…"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)


def step_line(record: StepRecord) -> str:
    """`✓ clean                  3.2 s (cached)`."""
    note = " (cached)" if record.cache_hit else " (off)" if record.handed_on else ""
    return f"{_MARKS.get(record.status, '?')} {record.step:<20}{record.seconds:>8.1f} s{note}"


def _now(run_folder: Path, record: StepRecord) -> str:
    """The step that works, for how long, and its last loss."""
    text = f"{record.step}: {time.time() - record.started_at:.0f} s"
    lines = read_spool(run_folder / "steps" / record.step / SPOOL)
    curve = [line for line in lines if line["type"] == "metric" and "loss" in line["key"]]
    if curve:
        text += f", step {curve[-1]['step']}, {curve[-1]['key']} {curve[-1]['value']:.3f}"
    return text

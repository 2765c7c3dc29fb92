"""What a person sees while the line runs: a line a step, and on a terminal what goes on now."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.record import StepRecord
from embedline.artifacts.tracker import SPOOL
from embedline.training.engine.curves import line

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
        self._heard: dict[str, _Heard] = {}

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
            self._console.print(f"  {self._now(run_folder, running)}", highlight=False, markup=False)

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _spin(self, run_folder: Path, running: StepRecord | None) -> None:
        text = self._now(run_folder, running) if running else "…"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def _now(self, run_folder: Path, record: StepRecord) -> str:
        """The step that works, for how long, and what its training last told."""
        text = f"{record.step}: {time.time() - record.started_at:.0f} s"
        heard = self._heard.setdefault(record.step, _Heard(run_folder / "steps" / record.step / SPOOL))
        return f"{text}, {told}" if (told := heard.line()) else text


class _Heard:
    """What a step's spool says of its training; each look reads on from where the last one ended."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.offset = spool, 0
        self.values: dict[str, float] = {}
        self.step = 0
        self.steps: int | None = None

    def line(self) -> str:
        """Empty while nothing trains."""
        self._read_on()
        return line(self.values, self.step, self.steps) if "loss" in self.values else ""

    def _read_on(self) -> None:
        if not self.spool.is_file() or self.spool.stat().st_size == self.offset:
            return
        with self.spool.open("rb") as file:
            file.seek(self.offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self.offset += len(whole) + len(end)
        for text in whole.splitlines():
            try:
                said = json.loads(text)
            except ValueError:  # cut off by a crash
                continue
            if said["type"] == "param" and said["key"] == "steps":
                self.steps = int(said["value"])
            elif said["type"] == "metric" and said["step"] >= max(1, self.step):  # 0: results, not a curve
                self.step = said["step"]
                self.values[said["key"]] = said["value"]


def step_line(record: StepRecord) -> str:
    """`✓ clean                  3.2 s (cached)`."""
    note = " (cached)" if record.cache_hit else " (off)" if record.passed_through else ""
    return f"{_MARKS.get(record.status, '?')} {record.step:<20}{record.seconds:>8.1f} s{note}"

"""Progress of a run on the terminal: a line for each finished step, and the state of the running one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.record import StepRecord
from embedline.artifacts.run_folder import read_plan
from embedline.artifacts.tracker import SPOOL
from embedline.planning.cost_table import minutes
from embedline.training.engine.curves import line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

HEARTBEAT_S = 30.0
_REJECTED = "records.rejected."
_MARKS = {"done": "✓", "failed": "✗", "killed": "✗"}


class Progress:
    """A display of ended steps; a spinner on a terminal, a line every half minute elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: set[tuple[str, float]] = set()  # a retried step has ended more than once
        self._beat = time.monotonic()
        self._status: Status | None = None
        self._spools: dict[str, _SpoolReader] = {}
        self._plan: Mapping[str, Any] = {}

    def __call__(self, run_folder: Path, records: Sequence[StepRecord]) -> None:
        for record in records:
            ended = record.step, record.started_at
            if record.status != "running" and ended not in self._printed:
                self._printed.add(ended)
                self._beat = time.monotonic()
                self._console.print(step_line(record), highlight=False, markup=False)
        running = next((record for record in records if record.status == "running"), None)
        if self._console.is_terminal:
            self._spin(run_folder, running)
        elif running is not None and time.monotonic() - self._beat >= HEARTBEAT_S:
            self._beat = time.monotonic()
            self._console.print(f"  {self._now(run_folder, running)}", highlight=False, markup=False)

    def stop(self) -> None:
        """Remove the spinner."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _spin(self, run_folder: Path, running: StepRecord | None) -> None:
        from rich.text import Text

        text = self._now(run_folder, running) if running else "…"
        if self._status is None:
            self._status = self._console.status(Text(text))
            self._status.start()
        self._status.update(Text(text))

    def _now(self, run_folder: Path, record: StepRecord) -> str:
        """Return the running step, its seconds, the last metrics of its training, and the run's time left."""
        spent = time.time() - record.started_at
        text = f"{record.step}: {spent:.0f} s"
        spool = self._spools.setdefault(record.step, _SpoolReader(run_folder / "steps" / record.step / SPOOL))
        text = f"{text}, {metrics}" if (metrics := spool.line()) else text
        self._plan = self._plan or read_plan(run_folder)
        left = _seconds_left(self._plan, record.step, spent, spool.values.get("eta_seconds"))
        return text if left is None else f"{text}, run: about {minutes(left)} left"


class _SpoolReader:
    """Reader of a step's spool; each call reads only what was written since the last one."""

    def __init__(self, spool: Path) -> None:
        self.spool, self.offset = spool, 0
        self.values: dict[str, float] = {}
        self.step = 0
        self.steps: int | None = None

    def line(self) -> str:
        """Return the last metrics of the training in one line; empty while there is no loss."""
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
                entry = json.loads(text)
            except ValueError:  # cut off by a crash
                continue
            if entry["type"] == "param" and entry["key"] == "steps":
                self.steps = int(entry["value"])
            elif entry["type"] == "metric" and entry["step"] >= max(1, self.step):  # 0: results, not a curve
                self.step = entry["step"]
                self.values[entry["key"]] = entry["value"]


def _seconds_left(plan: Mapping[str, Any], running: str, spent: float, eta: float | None) -> float | None:
    """Return the seconds until the run's end by its plan; None where the plan has no times.

    Args:
        running: the step that runs, since `spent` seconds.
        eta: what its training expects to need, which is better than the plan once it is known.
    """
    planned = {
        step["step"]: step["seconds"] or 0.0
        for step in plan.get("steps", [])
        if step["action"] in {"runs", "acts"}
    }
    if running not in planned or not any(planned.values()):
        return None
    later = list(planned)[list(planned).index(running) + 1 :]
    now = max(0.0, planned[running] - spent) if eta is None else eta
    return now + sum(planned[name] for name in later)


def step_line(record: StepRecord) -> str:
    """Return the line of a finished step, with the rows that it lost.

    `✓ clean                  3.2 s (cached)  214 → 20 records (evaluation_text 194)`
    """
    note = " (cached)" if record.cache_hit else " (off)" if record.passed_through else ""
    mark = _MARKS.get(record.status, "?")
    return f"{mark} {record.step:<20}{record.seconds:>8.1f} s{note}{_lost_rows(record.metrics)}"


def _lost_rows(metrics: Mapping[str, float]) -> str:
    """Return what ingest and clean did not let through; empty when they lost nothing."""
    if quarantined := metrics.get("quarantined"):
        return f"  {metrics['rows_read']:,.0f} rows read, {quarantined:,.0f} quarantined"
    rejected = {key.removeprefix(_REJECTED): n for key, n in metrics.items() if key.startswith(_REJECTED)}
    if not rejected:
        return ""
    rules = ", ".join(f"{rule} {n:,.0f}" for rule, n in sorted(rejected.items(), key=lambda item: -item[1]))
    return f"  {metrics['records.in']:,.0f} → {metrics['records.out']:,.0f} records ({rules})"

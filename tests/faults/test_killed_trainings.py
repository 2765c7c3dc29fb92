"""SIGKILL at any moment: the resumed training ends with the weights and the trace of an uninterrupted one.

`EMBEDLINE_SOAK=N` kills each stage at N random moments (1 without it), and at every boundary of a save.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from embedline.training.engine.curves import TIMED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SCRIPT = Path(__file__).with_name("trainings.py")
STAGES = ["retromae", "mlm", "mntp", "infonce", "unified", "distilled", "healing"]
CACHED = ["infonce", "unified", "distilled"]  # through GradCache
SOAK = int(os.environ.get("EMBEDLINE_SOAK", "0"))
NEVER = 10**6


@dataclass
class End:
    """How a training ended, when nothing stopped it."""

    weights: dict[str, torch.Tensor]
    history: list[Any]
    resumed_from: str | None


@dataclass
class Trainings:
    """The server of trainings, and the uninterrupted end of each stage."""

    root: Path
    server: subprocess.Popen[str]
    wholes: dict[str, tuple[End, float, int]] = field(default_factory=dict)

    def run(self, stage: str, folder: Path, *, kill: Any = None, after_s: float | None = None) -> int:
        """Train; killed by itself as `kill` says, or from outside some seconds after it began. Exit code."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        (folder / "began").unlink(missing_ok=True)
        order = {"stage": stage, "folder": str(folder), "kill": kill}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        pid = int(self.server.stdout.readline())
        if after_s is not None:
            while not (folder / "began").exists():
                time.sleep(0.005)
            time.sleep(after_s)
            with contextlib.suppress(ProcessLookupError):  # it was done before that
                os.kill(pid, signal.SIGKILL)
        return int(self.server.stdout.readline())

    def end(self, folder: Path) -> End:
        kept = json.loads((folder / "history.json").read_text())
        history = [
            [step, {key: value for key, value in values.items() if key not in TIMED}]
            for step, values in kept["history"]
        ]
        return End(load_file(folder / "weights.safetensors"), history, kept["from"])

    def whole(self, stage: str) -> tuple[End, float, int]:
        """The uninterrupted end, its seconds, and how often its second save touches the disk."""
        if stage not in self.wholes:
            folder = self.root / f"{stage}-whole"
            began = time.monotonic()
            assert self.run(stage, folder, kill={"at": "save", "boundary": NEVER}) == 0
            seconds = time.monotonic() - began
            self.wholes[stage] = self.end(folder), seconds, int((folder / "boundaries").read_text())
        return self.wholes[stage]

    def must_end_the_same(self, stage: str, folder: Path, what: str) -> End:
        """Go on after a kill; what comes out is what an uninterrupted training gives."""
        assert self.run(stage, folder) == 0, what
        end, (whole, _, _) = self.end(folder), self.whole(stage)
        assert end.weights.keys() == whole.weights.keys()
        for name, value in end.weights.items():
            assert torch.equal(value, whole.weights[name]), f"{stage}, {what}: {name}"
        assert end.history == whole.history, f"{stage}, {what}"
        return end


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield Trainings(tmp_path_factory.mktemp("trainings"), server)
    assert server.stdin is not None
    server.stdin.close()
    server.wait(timeout=60)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_random_moments(trainings: Trainings, stage: str, tmp_path: Path) -> None:
    _, seconds, _ = trainings.whole(stage)
    for number in range(SOAK or 1):
        after_s = random.uniform(0, seconds)
        folder = tmp_path / str(number)
        assert trainings.run(stage, folder, after_s=after_s) in {-signal.SIGKILL, 0}
        trainings.must_end_the_same(stage, folder, f"killed after {after_s:.3f} s")


@pytest.mark.parametrize("stage", STAGES)
def test_killed_while_a_checkpoint_is_saved(trainings: Trainings, stage: str, tmp_path: Path) -> None:
    """Every boundary of one stage; one, in turn, of each of the others."""
    _, _, boundaries = trainings.whole(stage)
    assert boundaries > 5
    every = range(1, boundaries + 1)
    chosen = every if SOAK or stage == "infonce" else [1 + (7 * STAGES.index(stage) + 3) % boundaries]
    resumed = set()
    for boundary in chosen:
        folder = tmp_path / str(boundary)
        code = trainings.run(stage, folder, kill={"at": "save", "boundary": boundary})
        assert code == -signal.SIGKILL, boundary
        end = trainings.must_end_the_same(stage, folder, f"killed before write {boundary} of a save")
        resumed.add(end.resumed_from)
    if len(list(chosen)) > 1:  # before its mark stands the first checkpoint counts, then the second
        assert resumed <= {"checkpoint-3", "checkpoint-6"}
        assert "checkpoint-3" in resumed


@pytest.mark.parametrize("stage", CACHED)
def test_killed_in_gradcaches_second_pass(trainings: Trainings, stage: str, tmp_path: Path) -> None:
    for number in [9] if not SOAK else random.sample(range(1, 20), min(SOAK, 15)):
        folder = tmp_path / str(number)
        code = trainings.run(stage, folder, kill={"at": "second pass", "chunk": number})
        assert code == -signal.SIGKILL
        trainings.must_end_the_same(stage, folder, f"killed in second pass {number}")


def test_killed_again_and_again(trainings: Trainings, tmp_path: Path) -> None:
    _, seconds, _ = trainings.whole("unified")
    for _ in range(4):
        trainings.run("unified", tmp_path, after_s=random.uniform(0, seconds / 2))
    trainings.must_end_the_same("unified", tmp_path, "killed four times")

"""The engine: what a kill, a bad loss and a schedule do."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedline.config.training import Optimization
from embedline.errors import StepError
from embedline.training.engine import train

STEPS = 12
History = list[tuple[int, dict[str, float]]]


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


class Net(nn.Module):
    """Dropout makes every step depend on the generator's state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 8))


class Step:
    def __init__(self, die_at: int | None = None, nan_at: int | None = None) -> None:
        self.die_at, self.nan_at, self.seen = die_at, nan_at, []

    def __call__(self, module: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Net)
        assert module.training
        self.seen.append(batch["number"])
        if batch["number"] == self.die_at:
            raise KilledError
        loss = (module.layers(torch.tensor(batch["rows"])) - 1).square().mean()
        if batch["number"] == self.nan_at:
            loss = loss * float("nan")
        loss.backward()
        return loss.detach(), {"noise": torch.rand(1).item(), "tokens": 4.0}


def batches(steps: int = STEPS) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"number": i, "rows": torch.randn(4, 8, generator=generator).tolist()} for i in range(steps)]


def settings(**values: Any) -> Optimization:
    base = {"learning_rate": 0.01, "checkpoint_every": 3, "log_every": 3}
    return Optimization(**(base | values))


def run(
    folder: Path, step: Step, *, optimization: Optimization | None = None, steps: int = STEPS
) -> tuple[Net, History]:
    module, told = Net(), History()
    train(
        module,
        batches(steps),
        step,
        optimization or settings(),
        checkpoints=folder,
        seed=7,
        on_metrics=lambda values, at: told.append((at, values)),
    )
    return module, told


def without_speed(told: History) -> History:
    return [(step, {k: v for k, v in values.items() if k != "tokens_per_second"}) for step, values in told]


def assert_bit_for_bit(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, History]:
    return run(tmp_path_factory.mktemp("whole"), Step())


@pytest.mark.parametrize("die_at", [0, 3, 7, 11])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(
    uninterrupted: tuple[Net, History], tmp_path: Path, die_at: int
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=die_at))
    step = Step()
    module, told = run(tmp_path, step)
    assert step.seen == list(range(die_at // 3 * 3, STEPS))
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(told) == without_speed(uninterrupted[1])  # the history is told again


def test_a_training_killed_twice_is_still_the_same(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    for die_at in (4, 8):
        with pytest.raises(KilledError):
            run(tmp_path, Step(die_at=die_at))
    assert_bit_for_bit(run(tmp_path, Step())[0], uninterrupted[0])


def test_a_training_that_was_done_makes_no_further_step(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    run(tmp_path, Step())
    step = Step()
    module, told = run(tmp_path, step)
    assert step.seen == []
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(told) == without_speed(uninterrupted[1])


def test_a_half_written_checkpoint_is_ignored_and_removed(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7))
    half = tmp_path / "checkpoint-7"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    step = Step()
    module, _ = run(tmp_path, step)
    assert step.seen[0] == 6
    assert not half.exists()
    assert_bit_for_bit(module, uninterrupted[0])


def test_checkpoints_do_not_pile_up(tmp_path: Path) -> None:
    run(tmp_path, Step(), optimization=settings(checkpoint_every=1))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-11", "checkpoint-12"]


def test_metrics_are_means_over_the_logged_steps(uninterrupted: tuple[Net, History]) -> None:
    told = uninterrupted[1]
    assert [step for step, _ in told] == [3, 6, 9, 12]
    for _, values in told:
        assert values.keys() == {"noise", "loss", "grad_norm", "learning_rate", "tokens_per_second"}
        assert 0 < values["noise"] < 1
    assert told[-1][1]["loss"] < told[0][1]["loss"]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_keeps_the_batch(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="the loss became nan at step 4") as error:
        run(tmp_path, Step(nan_at=4))
    kept = tmp_path / "bad-batch-4.json"
    assert str(kept) in str(error.value)
    assert json.loads(kept.read_text()) == batches()[4]


def test_after_a_bad_loss_training_resumes_from_good_weights(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    with pytest.raises(StepError):
        run(tmp_path, Step(nan_at=4))
    assert_bit_for_bit(run(tmp_path, Step())[0], uninterrupted[0])


SCHEDULES = {
    "linear": lambda i: i / 2 if i < 2 else (10 - i) / 8,
    "constant": lambda i: min(1.0, i / 2),
    "warmup_stable_decay": None,
    "cosine": None,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_warm_up_and_come_down(tmp_path: Path, schedule: str) -> None:
    wanted = settings(schedule=schedule, warmup=0.2, log_every=1, checkpoint_every=100)
    _, told = run(tmp_path, Step(), optimization=wanted, steps=10)
    rates = [values["learning_rate"] / 0.01 for _, values in told]
    assert len(rates) == 10
    assert rates[0] < max(rates) == pytest.approx(1.0)
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(rates[2:]))
    formula = SCHEDULES[schedule]
    if formula is not None:  # step i uses the rate of position i
        assert rates == pytest.approx([formula(i) for i in range(10)], abs=1e-6)
    if schedule != "constant":
        assert rates[-1] < 0.6
    if schedule == "warmup_stable_decay":
        assert rates[2:8] == pytest.approx([1.0] * 6)


def test_one_step_is_a_training(tmp_path: Path) -> None:
    step = Step()
    run(tmp_path, step, steps=1)
    assert step.seen == [0]

"""A training's timing: phases, the peak, the speeds computed from them, one live line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from embedline.artifacts.tracker import Tracker, read_spool
from embedline.config.training import Optimization
from embedline.training.engine import step_timer as module
from embedline.training.engine.curves import PHASES, TIMED, line
from embedline.training.engine.flops import non_embedding_parameters, peak_flops
from embedline.training.engine.step_timer import StepTimer
from embedline.training.engine.trainer import train

History = list[tuple[int, dict[str, float]]]
CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Time passes when it is called."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_phase_inside_another_stops_the_others_clock(clock: Callable[[float], None]) -> None:
    timer = StepTimer()
    clock(1)
    with timer.phase("forward"):
        clock(2)
        with timer.phase("logging"):
            clock(4)
        clock(8)
        with contextlib.suppress(KilledError), timer.phase("backward"):
            clock(16)
            raise KilledError
    clock(32)
    expected = dict.fromkeys(PHASES, 0.0) | {"forward": 10.0, "logging": 4.0, "backward": 16.0}
    assert timer.seconds() == expected
    assert timer.seconds() == dict.fromkeys(PHASES, 0.0)


def test_an_open_phase_is_counted_up_to_now(clock: Callable[[float], None]) -> None:
    timer = StepTimer()
    timer.enter("optimizer")
    clock(3)
    assert timer.seconds()["optimizer"] == 3
    clock(5)
    timer.leave()
    clock(7)
    assert timer.seconds()["optimizer"] == 5


class Nothing(nn.Module):
    """One number to train, in a model of a known size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(50, 8)
        self.dense = nn.Linear(8, 3)


def test_embedding_tables_do_not_count_as_work(make_embedder: Any) -> None:
    assert non_embedding_parameters(Nothing()) == 8 * 3 + 3
    backbone = make_embedder().backbone
    assert non_embedding_parameters(backbone) == backbone.num_parameters(exclude_embeddings=True)


def test_measuring_the_peak_draws_nothing_and_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    found = peak_flops(CPU, bf16=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert found > 1e9
    monkeypatch.setattr("embedline.training.engine.flops._seconds", lambda *_: pytest.fail("measured again"))
    assert peak_flops(CPU, bf16=False) == found


def training(folder: Path, on_metrics: Any, *, steps: int = 6, log_every: int = 2, **step: Any) -> StepTimer:
    net = Nothing()
    timer = StepTimer(net)
    train(
        net,
        list(range(steps)),
        Step(timer, **step),
        Optimization(steps=steps, log_every=log_every, checkpoint_every=3),
        checkpoints=folder,
        seed=0,
        on_metrics=on_metrics,
        timer=timer,
    )
    return timer


class Step:
    """Reads 10 tokens, goes through 16; `seen` has which steps were due."""

    def __init__(self, timer: StepTimer, die_at: int | None = None) -> None:
        self.timer, self.die_at, self.log_due = timer, die_at, []

    def __call__(self, net: nn.Module, number: int) -> tuple[Tensor, dict[str, Any]]:
        if number == self.die_at:
            raise KilledError
        self.log_due.append(self.timer.log_due)
        self.timer.padded_tokens += 16
        with self.timer.phase("forward"):
            loss = net.dense(torch.ones(8)).square().sum()  # type: ignore[operator]
        with self.timer.phase("backward"):
            loss.backward()
        return loss.detach(), {"tokens": 10.0, "twice": loss.detach() * 2}


def test_the_speeds_of_a_line_fit_together(tmp_path: Path) -> None:
    logged: History = []
    timer = training(tmp_path, lambda values, step: logged.append((step, values)))
    assert [step for step, _ in logged] == [2, 4, 6]
    for step, values in logged:
        speed = values["tokens_per_second"]
        assert values["padding_share"] == pytest.approx(1 - 10 / 16)
        assert values["padded_tokens_per_second"] == pytest.approx(1.6 * speed)
        assert values["step_seconds"] * speed == pytest.approx(10)
        assert values["share_of_peak"] == pytest.approx(6 * 27 * speed / timer.peak_flops)
        spent = [values[f"{phase}_seconds"] for phase in PHASES]
        assert all(seconds > 0 for seconds in spent[:4])
        assert sum(spent) < values["step_seconds"]
        assert values["twice"] == pytest.approx(2 * values["loss"])
        assert (values["eta_seconds"] == 0) == (step == 6)
    assert logged[1][1]["logging_seconds"] > 0  # the line before
    assert {"tokens", "padded_tokens"} & logged[0][1].keys() == set()


def test_metrics_are_due_at_logged_steps_and_the_last(tmp_path: Path) -> None:
    net = Nothing()
    timer = StepTimer(net)
    step = Step(timer)
    optimization = Optimization(steps=8, log_every=3)
    train(
        net,
        list(range(8)),
        step,
        optimization,
        checkpoints=tmp_path,
        seed=0,
        on_metrics=lambda *_: None,
        timer=timer,
    )
    assert step.log_due == [False, False, True, False, False, True, False, True]


def test_no_number_is_read_from_the_device_between_logged_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading from a GPU waits for it. The one read of a step is whether loss and gradient are finite."""
    reads: list[int] = []
    began: list[int] = []

    def counting(name: str) -> None:
        real = getattr(Tensor, name)

        def ask(self: Tensor, *arguments: Any) -> Any:
            reads.append(len(began))
            return real(self, *arguments)

        monkeypatch.setattr(Tensor, name, ask)

    class Counting(Step):
        def __call__(self, net: nn.Module, number: int) -> tuple[Tensor, dict[str, Any]]:
            began.append(number)
            return super().__call__(net, number)

    for name in ("__float__", "__bool__", "__int__", "item", "tolist", "cpu"):
        counting(name)
    net = Nothing()
    timer = StepTimer(net)
    optimization = Optimization(steps=10, log_every=10, checkpoint_every=100)
    step = Counting(timer)
    train(
        net,
        list(range(10)),
        step,
        optimization,
        checkpoints=tmp_path,
        seed=0,
        on_metrics=lambda *_: None,
        timer=timer,
    )
    assert [reads.count(number) for number in range(2, 9)] == [1] * 7


def test_a_resumed_trainings_curves_have_each_point_once(tmp_path: Path) -> None:
    with pytest.raises(KilledError):  # after a line that its last checkpoint does not know
        training(tmp_path / "checkpoints", Tracker(tmp_path / "resumed").metrics, log_every=2, die_at=5)
    training(tmp_path / "checkpoints", Tracker(tmp_path / "resumed").metrics, log_every=2)
    training(tmp_path / "whole-checkpoints", Tracker(tmp_path / "whole").metrics, log_every=2)
    resumed, whole = (read_spool(tmp_path / name / "spool.jsonl") for name in ("resumed", "whole"))
    points = [(point["key"], point["step"]) for point in resumed]
    assert len(set(points)) == len(points)
    assert sorted(points) == sorted((point["key"], point["step"]) for point in whole)
    values = [
        {(p["key"], p["step"]): p["value"] for p in spool if p["key"] not in TIMED}
        for spool in (resumed, whole)
    ]
    assert values[0] == values[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_live_line_and_a_log_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    screen, log = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    training(tmp_path / "a", lambda *_: None)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI sets it: a log file is no terminal for that
    monkeypatch.setattr(sys, "stdout", log)
    training(tmp_path / "b", lambda *_: None)
    assert "\x1b[2K" in screen.getvalue()  # a line that is drawn anew
    assert "step 6/6 loss" in screen.getvalue()
    assert screen.getvalue().count("\n") <= 1
    assert "\x1b" not in log.getvalue()
    assert [text.split(" loss")[0] for text in log.getvalue().splitlines()] == [
        "step 2/6",
        "step 4/6",
        "step 6/6",
    ]


@given(
    st.dictionaries(
        st.sampled_from(["loss", "tokens_per_second", "eta_seconds", "share_of_peak"]), st.floats(0, 1e6)
    )
)
def test_the_line_holds_the_known_values_only(values: dict[str, float]) -> None:
    words = {
        "loss": "loss ",
        "tokens_per_second": "tokens/s",
        "eta_seconds": " left",
        "share_of_peak": "of peak",
    }
    text = line(values, 3, None)
    assert text.startswith("step 3")
    assert {name for name, word in words.items() if word in text} == values.keys()


def test_the_line_is_short_and_exact() -> None:
    values = {
        "loss": 0.42104,
        "in_batch_accuracy": 0.874,
        "tokens_per_second": 8012.3,
        "share_of_peak": 0.241,
        "padding_share": 0.05,
        "eta_seconds": 3725.2,
    }
    expected = "step 120/1000 loss 0.4210 accuracy 87% 8,012 tokens/s (24% of peak, 5% padding) 1:02:05 left"
    assert line(values, 120, 1000) == expected

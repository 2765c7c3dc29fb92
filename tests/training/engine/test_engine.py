"""The engine: what a kill, a bad loss and a schedule do."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedline.artifacts import durable
from embedline.config.training import Optimization
from embedline.errors import StepError, Stopped
from embedline.training.engine import checkpoint_callback, checkpoints, sigterm
from embedline.training.engine.curves import PHASES, TIMED
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.engine.trainer import train

STEPS = 12
History = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True)
class Batch:
    number: int
    source: str
    rows: list[str]
    values: list[list[float]]


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


class Net(nn.Module):
    """Dropout makes every step depend on the generator's state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 8))


class Step:
    """`bad_at`: step → "loss" or "gradient", which is then not finite."""

    def __init__(self, die_at: int | None = None, bad_at: dict[int, str] | None = None) -> None:
        self.die_at, self.bad_at, self.seen = die_at, bad_at or {}, []

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(module, Net)
        assert module.training
        self.seen.append(batch.number)
        if batch.number == self.die_at:
            raise KilledError
        loss = (module.layers(torch.tensor(batch.values)) - 1).square().mean()
        bad = self.bad_at.get(batch.number)
        if bad == "loss":
            loss = loss * float("nan")
        loss.backward()
        if bad == "gradient":
            module.layers[0].weight.grad[0, 0] = torch.inf
        return loss.detach(), {"noise": torch.rand(1).item(), "tokens": 4.0}


def batches(steps: int = STEPS) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(4, 8, generator=generator).tolist() for _ in range(steps)]
    return [Batch(i, "docs", [f"{i}a", f"{i}b"], values[i]) for i in range(steps)]


def settings(**values: Any) -> Optimization:
    base = {"learning_rate": 0.01, "checkpoint_every": 3, "log_every": 3}
    return Optimization(**(base | values))


def run(
    folder: Path,
    step: Step,
    *,
    optimization: Optimization | None = None,
    steps: int = STEPS,
    budget: TokenBudget | None = None,
    seed: int = 7,
) -> tuple[Net, History]:
    module, logged = Net(), History()
    train(
        module,
        batches(steps),
        step,
        optimization or settings(),
        checkpoints=folder,
        seed=seed,
        on_metrics=lambda values, at: logged.append((at, values)),
        budget=budget,
    )
    return module, logged


def without_speed(logged: History) -> History:
    return [(step, {k: v for k, v in values.items() if k not in TIMED}) for step, values in logged]


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
    module, logged = run(tmp_path, step)
    assert step.seen == list(range(die_at // 3 * 3, STEPS))
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(logged) == without_speed(uninterrupted[1])  # the history is logged again


def test_each_step_draws_anew_as_the_seed_says(tmp_path: Path) -> None:
    drawn = []
    for folder, seed in (("one", 1), ("again", 1), ("two", 2)):
        _, logged = run(tmp_path / folder, Step(), steps=4, seed=seed, optimization=settings(log_every=1))
        drawn.append([values["noise"] for _, values in logged])
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 8


def test_a_training_killed_twice_is_still_the_same(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    for die_at in (4, 8):
        with pytest.raises(KilledError):
            run(tmp_path, Step(die_at=die_at))
    assert_bit_for_bit(run(tmp_path, Step())[0], uninterrupted[0])


def test_a_finished_training_makes_no_further_step(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    run(tmp_path, Step())
    step = Step()
    module, logged = run(tmp_path, step)
    assert step.seen == []
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(logged) == without_speed(uninterrupted[1])


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


def test_old_checkpoints_are_chosen_by_step_not_by_time(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    """A pod that goes on elsewhere may have a clock that is behind."""
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7))
    later = time.time() + 3600
    for number, name in enumerate(("checkpoint-6", "checkpoint-3")):
        os.utime(tmp_path / name, (later + number, later + number))
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=10))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-9"]
    assert_bit_for_bit(run(tmp_path, Step())[0], uninterrupted[0])


def test_a_checkpoint_is_removed_only_when_the_newest_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, there = checkpoint_callback.mark_complete, []

    def marking(checkpoint: Path) -> None:
        there.append(sorted(path.parent.name for path in tmp_path.glob("checkpoint-*/complete")))
        real(checkpoint)

    monkeypatch.setattr(checkpoint_callback, "mark_complete", marking)
    run(tmp_path, Step())
    assert there == [
        [],
        ["checkpoint-3"],
        ["checkpoint-3", "checkpoint-6"],
        ["checkpoint-6", "checkpoint-9"],
    ]


def test_metrics_are_means_over_the_logged_steps(uninterrupted: tuple[Net, History]) -> None:
    logged = uninterrupted[1]
    assert [step for step, _ in logged] == [3, 6, 9, 12]
    for _, values in logged:
        untimed = {"noise", "loss", "grad_norm", "learning_rate"}
        timed = {"tokens_per_second", "eta_seconds", "step_seconds", *(f"{name}_seconds" for name in PHASES)}
        assert values.keys() == untimed | timed  # no values that the step does not report
        assert 0 < values["noise"] < 1
    assert logged[-1][1]["loss"] < logged[0][1]["loss"]


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_bad_step_beyond_the_limit_fails_and_saves_the_batch(tmp_path: Path, bad: str) -> None:
    with pytest.raises(StepError, match="step 4: the ") as error:
        run(tmp_path, Step(bad_at={4: bad}), optimization=settings(max_bad_steps=0))
    kept = tmp_path / "bad-step-4-docs.json"
    assert str(kept) in str(error.value)
    assert "docs (rows 4a, 4b)" in str(error.value)
    saved = json.loads(kept.read_text())
    assert saved["batch"] == asdict(batches()[4])
    assert (saved["source"], saved["rows"]) == ("docs", ["4a", "4b"])
    assert (saved["loss"] == "nan") == (bad == "loss")
    assert "layers.0.weight" in saved["parameters"]


def test_after_a_bad_loss_training_resumes_from_good_weights(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    with pytest.raises(StepError):
        run(tmp_path, Step(bad_at={4: "loss"}), optimization=settings(max_bad_steps=0))
    assert_bit_for_bit(run(tmp_path, Step())[0], uninterrupted[0])


def test_a_bad_step_changes_no_weight_and_no_metric(tmp_path: Path) -> None:
    seen: list[list[Tensor]] = []

    class Watching(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            seen.append([parameter.detach().clone() for parameter in module.parameters()])
            return super().__call__(module, batch)

    _, logged = run(tmp_path, Watching(bad_at={4: "gradient", 7: "loss"}))
    for bad in (4, 7):
        assert all(torch.equal(*pair) for pair in zip(seen[bad], seen[bad + 1], strict=True))
        assert not all(torch.equal(*pair) for pair in zip(seen[bad - 1], seen[bad], strict=True))
    assert len(list(tmp_path.glob("bad-step-*.json"))) == 2
    assert all(math.isfinite(value) for _, values in logged for value in values.values())


def test_the_limit_of_bad_steps_holds_across_a_resume(tmp_path: Path) -> None:
    optimization = settings(max_bad_steps=1)
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7, bad_at={4: "loss"}), optimization=optimization)
    with pytest.raises(StepError, match=r"step 8: .* limit of 1 skipped"):
        run(tmp_path, Step(bad_at={8: "loss"}), optimization=optimization)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "mark cut"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(
    uninterrupted: tuple[Net, History],
    tmp_path: Path,
    damage: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7))
    torn = tmp_path / "checkpoint-6" / (name if damage != "mark cut" else "complete")
    content = torn.read_bytes()
    if damage == "gone":
        torn.unlink()
    elif damage == "flipped":
        torn.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    else:
        torn.write_bytes(content[: len(content) // 2])
    step = Step()
    module, logged = run(tmp_path, step)
    assert step.seen[0] == 3
    assert "checkpoint-6 is damaged" in caplog.text
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(logged) == without_speed(uninterrupted[1])


def test_incomplete_checkpoints_are_removed(tmp_path: Path) -> None:
    run(tmp_path, Step())
    older, newer = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    (newer / "complete").unlink()
    assert checkpoints.newest_whole(tmp_path) == older
    assert not newer.exists()


def test_a_checkpoint_is_on_the_disk_before_it_is_marked_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    real = durable.flush

    def watched(path: Path) -> None:
        synced.append((path.name, any(tmp_path.glob("checkpoint-*/complete"))))
        real(path)

    monkeypatch.setattr(durable, "flush", watched)
    run(tmp_path, Step(), steps=3)
    [checkpoint] = tmp_path.glob("checkpoint-*")
    before = [name for name, marked in synced if not marked]
    written = {path.name for path in checkpoint.iterdir()} - {"complete"}
    assert set(before) >= written | {".complete", checkpoint.name}
    assert before[-1] == ".complete"
    assert [name for name, marked in synced if marked] == [checkpoint.name]  # the rename itself


def test_a_resume_between_two_logged_steps_logs_the_same(tmp_path: Path) -> None:
    optimization = settings(log_every=5)
    whole = run(tmp_path / "whole", Step(), optimization=optimization)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", Step(die_at=7), optimization=optimization)
    resumed = run(tmp_path / "killed", Step(), optimization=optimization)
    assert_bit_for_bit(resumed[0], whole[0])
    assert without_speed(resumed[1]) == without_speed(whole[1])


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            if batch.number == 4:
                full = shutil._ntuple_diskusage(10**9, 10**9 - 100, 100)  # type: ignore[attr-defined]
                monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
            return super().__call__(module, batch)

    with pytest.raises(StepError, match="a checkpoint needs") as error:
        run(tmp_path, Filling())
    assert str(tmp_path) in str(error.value)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.parametrize(
    "room", [200, 2_200, 6_000]
)  # in the model, in the optimizer, in the generator's state
def test_a_checkpoint_that_cannot_be_written_is_reported(
    uninterrupted: tuple[Net, History], tmp_path: Path, room: int
) -> None:
    class Full(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            if batch.number == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited[1]))
            return super().__call__(module, batch)

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StepError, match=r"checkpoint-6 could not be written \(.+\); .* GB are free"):
            run(tmp_path, Full())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        signal.signal(signal.SIGXFSZ, before)
    step = Step()
    assert_bit_for_bit(run(tmp_path, step)[0], uninterrupted[0])
    assert step.seen[0] == 3


class Exhausted(Step):
    """Runs out of memory at some steps while chunks are larger than what fits; draws before it does."""

    def __init__(self, budget: TokenBudget, fits: dict[int, int]) -> None:
        super().__init__()
        self.budget, self.fits, self.chunks = budget, fits, []

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        result = super().__call__(module, batch)
        self.chunks.append(self.budget.chunk)
        if self.budget.chunk > self.fits.get(batch.number, 2**30):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return result


def test_out_of_memory_halves_the_budget_and_repeats_the_step(
    uninterrupted: tuple[Net, History], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = TokenBudget(256, 100)
    step = Exhausted(budget, {2: 128, 5: 32})
    module, logged = run(tmp_path, step, budget=budget)
    assert step.seen == [0, 1, 2, 2, 3, 4, 5, 5, 5, *range(6, STEPS)]
    assert step.chunks == [256] * 3 + [128] * 4 + [64] + [32] * 7
    assert (budget.chunk, budget.resident) == (32, 12)
    assert "out of memory at step 2" in capsys.readouterr().out
    assert_bit_for_bit(module, uninterrupted[0])  # no gradient twice, no other dropout
    assert without_speed(logged) == without_speed(uninterrupted[1])


def test_a_halved_budget_is_remembered_by_a_resume(tmp_path: Path) -> None:
    budget = TokenBudget(256)
    step = Exhausted(budget, {2: 64})
    step.die_at = 7
    with pytest.raises(KilledError):
        run(tmp_path, step, budget=budget)
    again = TokenBudget(256)
    resumed = Exhausted(again, {})
    run(tmp_path, resumed, budget=again)
    assert set(resumed.chunks) == {64}


def test_a_step_that_never_fits_gives_up_with_advice(tmp_path: Path) -> None:
    budget = TokenBudget(64)
    with pytest.raises(StepError, match=r"step 1 does not fit into memory .*2\.00 GiB.*batch"):
        run(tmp_path, Exhausted(budget, {1: 0}), budget=budget)


LACKS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: str(lack)[:20] or type(lack).__name__)
def test_a_lack_of_memory_is_recognised_from_each_library(tmp_path: Path, lack: Exception) -> None:
    class Short(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            if batch.number == 1 and budget.chunk == 64:
                raise lack
            return super().__call__(module, batch)

    budget, step = TokenBudget(64), Short()
    run(tmp_path, step, steps=3, budget=budget)
    assert step.seen == [0, 1, 2]
    assert budget.chunk == 32


def test_a_lack_of_memory_for_the_optimizer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller chunks would not help, and its update may be half done."""

    def short(*_: Any, **__: Any) -> None:
        raise LACKS[2]

    monkeypatch.setattr(torch.optim.AdamW, "step", short)
    step = Step()
    with pytest.raises(StepError, match=r"after step 0, beside .*can't allocate memory.*model\.lora"):
        run(tmp_path, step, budget=TokenBudget(64))
    assert step.seen == [0]


def test_another_error_is_no_lack_of_memory(tmp_path: Path) -> None:
    class Wrong(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run(tmp_path, Wrong(), budget=TokenBudget(64))


def test_another_machine_is_reported_at_a_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7))
    kept = json.loads((tmp_path / "checkpoint-6" / "progress.json").read_text())["machine"]
    assert kept["threads"] == torch.get_num_threads()
    assert kept["processor"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    run(tmp_path, Step())
    assert f"(threads {kept['threads']} → 7)" in caplog.text


def test_the_same_machine_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, Step(die_at=7))
    run(tmp_path, Step())
    assert "another machine" not in caplog.text


def test_sigterm_ends_the_step_and_writes_a_checkpoint(
    uninterrupted: tuple[Net, History], tmp_path: Path
) -> None:
    class Terminated(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            if batch.number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(module, batch)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    step = Terminated()
    with pytest.raises(Stopped, match="after step 5 of 12") as stopped:
        run(tmp_path, step)
    assert stopped.value.exit_code == 143
    assert step.seen == [0, 1, 2, 3, 4]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    resumed = Step()
    module, logged = run(tmp_path, resumed)
    assert resumed.seen[0] == 5
    assert_bit_for_bit(module, uninterrupted[0])
    assert without_speed(logged) == without_speed(uninterrupted[1])


def test_a_step_that_does_not_end_in_time_after_sigterm_is_left(
    uninterrupted: tuple[Net, History], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sigterm, "GRACE_S", 0.5)

    class Endless(Step):
        def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
            if batch.number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(300)
            return super().__call__(module, batch)

    with pytest.raises(Stopped, match="the last checkpoint stands"):
        run(tmp_path, Endless())
    step = Step()
    assert_bit_for_bit(run(tmp_path, step)[0], uninterrupted[0])
    assert step.seen[0] == 3


SCHEDULES = {
    "linear": lambda i: i / 2 if i < 2 else (10 - i) / 8,
    "constant": lambda i: min(1.0, i / 2),
    "warmup_stable_decay": None,
    "cosine": None,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_warm_up_and_come_down(tmp_path: Path, schedule: str) -> None:
    optimization = settings(schedule=schedule, warmup=0.2, log_every=1, checkpoint_every=100)
    _, logged = run(tmp_path, Step(), optimization=optimization, steps=10)
    rates = [values["learning_rate"] / 0.01 for _, values in logged]
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


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_last_step_is_always_logged(tmp_path: Path, steps: int) -> None:
    step = Step()
    _, logged = run(tmp_path, step, steps=steps)
    assert step.seen == list(range(steps))
    assert [at for at, _ in logged] == sorted({*range(3, steps + 1, 3), steps})
    losses = {at: values["loss"] for at, values in logged}
    _, each = run(tmp_path / "each", Step(), steps=steps, optimization=settings(log_every=1))
    since = [values["loss"] for at, values in each if at > steps - (steps % 3 or 3)]
    assert losses[steps] == pytest.approx(sum(since) / len(since))

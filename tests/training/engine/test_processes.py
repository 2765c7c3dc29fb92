"""Two and four processes give the loss and the gradients of one, for every objective."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from embedline.training.engine.curves import TIMED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).parents[1] / "shared_batches.py"


class Outcome:
    """What one launch left."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes = folder, processes
        folder.mkdir()
        command = [sys.executable, str(SCRIPT), str(folder)]
        if processes > 1:
            agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
            command = [*agent, str(processes), *command[1:]]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        self.output = done.stdout + done.stderr

    def metrics(self) -> dict[str, dict[str, float]]:
        value: dict[str, dict[str, float]] = json.loads((self.folder / "metrics.json").read_text())
        return value

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def engines(self) -> list[dict[str, Any]]:
        return [json.loads((self.folder / f"engine-{i}.json").read_text()) for i in range(self.processes)]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("one") / "out", 1)


@pytest.fixture(scope="module", params=[2, 4])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Outcome(tmp_path_factory.mktemp("several") / "out", request.param)


def test_losses_and_metrics_are_those_of_one_process(one: Outcome, several: Outcome) -> None:
    assert several.metrics().keys() == one.metrics().keys()
    for case, expected in one.metrics().items():
        found = several.metrics()[case]
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-5), case


def test_gradients_are_those_of_one_process(one: Outcome, several: Outcome) -> None:
    expected, found = one.tensors("gradients"), several.tensors("gradients")
    assert found.keys() == expected.keys()  # what has no gradient in one process has none in several
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_case_has_gradients_that_are_not_zero(one: Outcome) -> None:
    gradients = one.tensors("gradients")
    for case in one.metrics():
        mine = [gradient for name, gradient in gradients.items() if name.startswith(f"{case}/")]
        assert max(float(gradient.abs().max()) for gradient in mine) > 1e-4, case
    for case in ("learnt temperature", "unified, learnt temperature"):
        assert abs(float(gradients[f"{case}/temperature.log_scale"])) > 1e-3
    assert "cosent/temperature.log_scale" not in gradients
    assert not any("heads.lexical" in name for name in gradients if name.startswith("unused heads/"))


@pytest.mark.parametrize("weights", ["whole", "pretrained"])
def test_a_whole_training_ends_with_the_weights_of_one_process(
    one: Outcome, several: Outcome, weights: str
) -> None:
    expected, found = one.tensors(weights), several.tensors(weights)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=1e-3, msg=name)


def test_a_resumed_training_is_the_uninterrupted_one_in_every_process(several: Outcome) -> None:
    assert all(engine["resumed is whole"] for engine in several.engines())


def test_each_process_draws_its_own_dropout(several: Outcome) -> None:
    drawn = [engine["dropped"] for engine in several.engines()]
    assert all(vectors == drawn[0] for vectors in drawn)  # all of them hold the same gathered vectors
    assert len(set(map(tuple, drawn[0]))) == 4  # and the same text four times differs four times


def test_only_the_first_process_logs_and_writes(several: Outcome) -> None:
    first, *others = several.engines()
    assert first["whole logged"] == [2, 4, 6]
    assert first["killed logged"] == [2, 4, 6]  # its history, and what came after
    assert all(engine["whole logged"] == engine["killed logged"] == [] for engine in others)
    assert several.output.count("resumed at step 4 of 6") == 1
    assert sorted(path.name for path in (several.folder / "whole").glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


def test_the_curves_are_those_of_one_process(one: Outcome, several: Outcome) -> None:
    """Speeds apart, of which only the first process's would be a part of the truth."""
    expected, found = (outcome.engines()[0]["whole curves"] for outcome in (one, several))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.keys() == theirs.keys()
        assert {"in_batch_accuracy", "alignment", "uniformity", "loss.faq"} <= mine.keys()
        untimed = {name: value for name, value in theirs.items() if name not in TIMED}
        assert {name: mine[name] for name in untimed} == pytest.approx(untimed, abs=2e-4, rel=1e-3)
        assert (
            0 <= mine["padding_share"] < 1
        )  # of all processes: what one went through is less than the batch
        speed = mine["padded_tokens_per_second"] * (1 - mine["padding_share"])
        assert mine["tokens_per_second"] == pytest.approx(speed)
        assert 0 < mine["forward_seconds"] < mine["step_seconds"]


def test_out_of_memory_in_one_process_halves_the_chunks_of_all(
    several: Outcome,
) -> None:
    for engine in several.engines():
        assert len(engine["budget"]) == 5  # places of a step
        for place, (budget, seen, same) in engine["budget"].items():
            assert budget == 64, place
            assert seen[-1] == 64, place
            assert same, place
    assert (
        several.output.count("out of memory at step 0") == 10
    )  # 256 → 128 → 64, reported by the first process


def test_a_bad_gradient_in_one_process_makes_all_skip_then_fail(several: Outcome) -> None:
    errors, weights = zip(*(engine["bad"] for engine in several.engines()), strict=True)
    assert all("step 2: " in error and "bad-step-2-faq.json" in error for error in errors)
    assert len(set(weights)) == 1
    kept = sorted(path.name for path in (several.folder / "bad").glob("*.json"))
    assert kept == ["bad-step-1-faq.json", "bad-step-2-faq.json"]


def test_processes_that_hold_different_batches_are_refused(one: Outcome, several: Outcome) -> None:
    assert all("drew different batches" in engine["different"] for engine in several.engines())
    assert one.engines()[0]["different"] == ""

"""The measurement behind `precision: auto`: decided by times that the tests give, never by this machine's."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from embedline.cli.app import app
from embedline.config.training import RuntimeConfig
from embedline.models import device, speed
from embedline.models.layer_work import LayerWork, encoding_work, training_work
from embedline.models.log_once import info_once
from embedline.models.machine import attention, works_in_bf16
from embedline.models.speed import Speed, kept_speeds, measured_speed, speeds_file

CPU = torch.device("cpu")
BERT = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
TRAINING, ENCODING = training_work(BERT, tokens=64, length=16), encoding_work(BERT)
AUTO = RuntimeConfig(precision="auto", threads=1)


@pytest.fixture(autouse=True)
def nothing_measured_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(speed, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(device, "processor_name", lambda: "a processor")
    measured_speed.cache_clear()
    info_once.cache_clear()
    yield
    measured_speed.cache_clear()
    info_once.cache_clear()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[LayerWork]]:
    """Replaces the clock: gives the seconds of fp32 and bf16 by work, and returns what was measured."""

    def replace(seconds: dict[LayerWork, tuple[float, float | None]]) -> list[LayerWork]:
        measured: list[LayerWork] = []

        def measure(work: LayerWork, *_: Any) -> Speed:
            measured.append(work)
            return Speed(work, *seconds[work])

        monkeypatch.setattr(speed, "_measure", measure)
        return measured

    return replace


@pytest.mark.parametrize("capability", ["amx_bf16", "avx512_bf16", "sve_bf16"])
@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [
        (1.0, 0.15, True),  # matrix units
        (1.0, 6.0, False),  # bf16 instructions that are slower than fp32 ones
        (1.0, 0.95, False),  # not clearly faster
    ],
)
def test_auto_takes_the_faster_precision_whatever_the_flags_promise(
    timed: Any, monkeypatch: pytest.MonkeyPatch, capability: str, fp32: float, bf16: float, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    timed({TRAINING: (fp32, bf16)})
    assert works_in_bf16(AUTO, TRAINING) is expected


def test_training_and_encoding_are_decided_apart(timed: Any) -> None:
    measured = timed({TRAINING: (1.0, 0.5), ENCODING: (0.5, 1.0)})
    assert works_in_bf16(AUTO, TRAINING)
    assert not works_in_bf16(AUTO, ENCODING)
    assert measured == [TRAINING, ENCODING]


def test_a_precision_that_is_set_is_taken_without_a_measurement(timed: Any) -> None:
    measured = timed({})
    assert works_in_bf16(RuntimeConfig(precision="bf16"), TRAINING)
    assert not works_in_bf16(RuntimeConfig(precision="fp32"), TRAINING)
    assert not works_in_bf16(RuntimeConfig(), TRAINING)
    assert attention(AUTO) == "plain"
    assert measured == []


def test_both_numbers_are_logged_once(timed: Any, caplog: pytest.LogCaptureFixture) -> None:
    timed({TRAINING: (TRAINING.operations / 3e11, TRAINING.operations / 5e10)})
    with caplog.at_level("INFO", logger="embedline"):
        works_in_bf16(AUTO, TRAINING)
        works_in_bf16(AUTO, TRAINING)
    [message] = caplog.messages
    assert message == (
        "Precision: fp32 (fp32 0.3, bf16 0.05 TFLOP/s a core with avx512_bf16; a layer of 16 × 32, 2 heads, "
        "64 tokens in texts of 16, training)."
    )


def test_a_measurement_is_kept_for_other_processes_and_other_works_beside_it(timed: Any) -> None:
    measured = timed({TRAINING: (1.0, 0.25), ENCODING: (1.0, None)})
    first = measured_speed(TRAINING, CPU, 1), measured_speed(ENCODING, CPU, 1)
    measured_speed.cache_clear()  # as a new process
    assert (measured_speed(TRAINING, CPU, 1), measured_speed(ENCODING, CPU, 1)) == first
    assert kept_speeds(CPU, 1) == list(first)
    assert measured == [TRAINING, ENCODING]
    measured_speed(TRAINING, CPU, 2)
    assert measured == [TRAINING, ENCODING, TRAINING], "other threads, another measurement"


@pytest.mark.parametrize("content", ['{"torn', "[1]", '{"KEY": 3}', '{"KEY": {"fp32": -1.0}}', "\x00"])
def test_a_damaged_measurement_is_made_anew(timed: Any, content: str) -> None:
    measured = timed({TRAINING: (1.0, 0.5)})
    measured_speed(TRAINING, CPU, 1)
    [key] = json.loads(speeds_file().read_text())
    speeds_file().write_text(content.replace("KEY", key))
    measured_speed.cache_clear()
    assert measured_speed(TRAINING, CPU, 1) == Speed(TRAINING, 1.0, 0.5)
    assert measured == [TRAINING, TRAINING]
    assert kept_speeds(CPU, 1) == [Speed(TRAINING, 1.0, 0.5)]


def test_a_cache_that_cannot_be_written_to_is_done_without(
    timed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed({TRAINING: (1.0, 0.5)})
    (tmp_path / "file").touch()
    monkeypatch.setattr(speed, "HF_HOME", str(tmp_path / "file"))
    assert works_in_bf16(AUTO, TRAINING)
    assert kept_speeds(CPU, 1) == []


def _keep(folder: str, width: int) -> None:
    speed.HF_HOME = folder
    work = training_work({**BERT, "hidden_size": width}, tokens=64, length=16)
    speed._measure = lambda work, *_: Speed(work, float(width), None)
    measured_speed(work, CPU, 1)


def test_processes_that_measure_at_once_lose_nothing(tmp_path: Path) -> None:
    widths = [8, 16, 24, 32]
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_keep, args=(str(tmp_path / "cache"), width)) for width in widths]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(speed.fp32 for speed in kept_speeds(CPU, 1)) == widths


@pytest.mark.parametrize("work", [TRAINING, ENCODING._replace(texts=2)])
def test_a_real_measurement_has_both_times_and_keeps_threads_and_random_state(work: LayerWork) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = measured_speed(work, CPU, 2)
    assert found.fp32 > 0
    assert found.bf16 is not None
    assert found.bf16 > 0
    assert found.gain >= 1
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads


def test_emulated_bf16_is_neither_measured_nor_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not works_in_bf16(AUTO, TRAINING)
    found = measured_speed(TRAINING, CPU, 1)
    assert found.bf16 is None
    assert found.seconds(bf16=True) == found.fp32


def test_the_work_has_the_models_shapes_and_is_quick_to_measure() -> None:
    large = {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "intermediate_size": 12288,
    }
    work = training_work(large, tokens=4096, length=100)
    assert (work.width, work.inner, work.heads, work.gated) == (4096, 12288, 32, True)
    assert (work.texts, work.length, work.tokens) == (2, 64, 128), "powers of two, and not the whole chunk"
    # By hand: 4 D² + 3 D I weights, 2 operations a weight and token, 4 T D for attention; thrice to train.
    assert work.operations == 3 * 128 * (2 * (4 * 4096**2 + 3 * 4096 * 12288) + 4 * 64 * 4096)
    assert encoding_work({"text_config": BERT, "model_type": "some"})[:4] == (16, 32, 2, False)
    assert training_work({}, tokens=2048, length=128)[:3] == (768, 3072, 12), "BERT's where none are stated"


def test_doctor_shows_both_numbers_and_what_is_kept(timed: Any) -> None:
    usual = {"model_type": "bert", "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    training, encoding = training_work(usual, tokens=2048, length=128), encoding_work(usual)
    times = {
        work: (work.operations / 2e11, work.operations / 4e10) for work in (training, encoding, TRAINING)
    }
    timed(times)
    measured_speed(TRAINING, CPU, torch.get_num_threads())
    out = CliRunner().invoke(app, ["doctor", "--json"]).output
    [line] = [check for check in json.loads(out)["checks"] if check["name"] == "precision"]
    assert line["ok"]
    assert line["value"].count("auto takes fp32 (fp32 0.2, bf16 0.04 TFLOP/s a core with avx512_bf16") == 2
    assert "16 × 32, 2 heads, 64 tokens in texts of 16, training" in line["value"]
    assert str(speeds_file()) in line["value"]

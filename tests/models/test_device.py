from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from embedline.models import device
from embedline.models.device import bf16_instructions, bf16_is_faster

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_measured_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device, "HF_HOME", str(tmp_path / "cache"))
    device._bf16_gain.cache_clear()
    yield
    device._bf16_gain.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, []),  # Zen 2
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, []),  # Cascade Lake
        ({"avx512_bf16": True, "amx_bf16": False}, ["avx512_bf16"]),  # Zen 4
        ({"avx512_bf16": True, "amx_bf16": True}, ["amx_bf16", "avx512_bf16"]),  # Sapphire Rapids
        ({"neon": True, "bf16": True, "sve_bf16": True}, ["bf16", "sve_bf16"]),  # Graviton 3
        ({"neon": True, "bf16": False}, []),
    ],
)
def test_a_cpu_has_bf16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bf16_instructions(torch.device("cpu")) == expected


def test_a_gpu_that_emulates_bf16_does_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert bf16_instructions(torch.device("cuda")) == []


def _times(monkeypatch: pytest.MonkeyPatch, fp32: list[float], bf16: list[float]) -> list[bool]:
    """Let each measurement of a layer return the next of these times; return the order of measurements."""
    order: list[bool] = []
    left = {False: iter(fp32), True: iter(bf16)}

    def seconds(*_: object) -> float:
        order.append(bool(_[2]))
        return next(left[order[-1]])

    monkeypatch.setattr(device, "_seconds", seconds)
    return order


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [
        ([1.0] * 7, [0.5] * 7, True),
        ([1.0] * 7, [1.4] * 7, False),  # a CPU whose bf16 instructions are slower than its fp32 ones
        ([1.0] * 7, [0.95] * 7, False),  # not clearly faster
        ([9.0, 1.0, 8.0, 9.0, 9.0, 9.0, 9.0], [5.0, 5.0, 5.0, 5.0, 0.5, 5.0, 5.0], True),  # another program
        ([9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0], [1.0] * 7, False),
    ],
)
def test_vector_instructions_are_measured_and_fp32_wins_a_draw(
    monkeypatch: pytest.MonkeyPatch, fp32: list[float], bf16: list[float], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    order = _times(monkeypatch, fp32, bf16)
    faster, reason = bf16_is_faster(CPU)
    assert faster is expected
    assert reason == f"avx512_bf16; a layer takes {min(bf16) / min(fp32):.2f} of its fp32 time in bf16"
    assert sorted(order[:2]) == sorted(order[-2:]) == [False, True], "fp32 and bf16 take turns"
    assert bf16_is_faster(CPU) == (faster, reason), "measured once a process"
    device._bf16_gain.cache_clear()
    assert bf16_is_faster(CPU) == (faster, reason), "another process takes the same measurement"


def test_a_damaged_measurement_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    file = tmp_path / "cache" / "embedline" / "bf16.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"torn')
    _times(monkeypatch, [1.0] * 7, [0.5] * 7)
    assert bf16_is_faster(CPU)[0]


@pytest.mark.parametrize(("capability", "expected"), [("amx_bf16", True), ("avx2", False)])
def test_what_the_instructions_tell_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    order = _times(monkeypatch, [], [])
    assert bf16_is_faster(CPU)[0] is expected
    assert order == []


def test_measuring_keeps_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert device._bf16_gain(CPU, 1) > 0
    assert torch.equal(torch.rand(2), expected)

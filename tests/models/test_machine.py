from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedline.config.training import RuntimeConfig
from embedline.models import machine
from embedline.models.machine import prepare
from embedline.planning.checks import machine as checks
from embedline.planning.checks.machine import precision_notes


@pytest.fixture(autouse=True)
def a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks, "_GPU_DRIVER", Path("/no/such/file"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def has_bf16(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has})


def test_the_plan_warns_of_emulated_bf16_where_the_training_will_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_bf16(monkeypatch, False)
    [note] = precision_notes(RuntimeConfig(precision="bf16"))
    assert note.startswith("runtime.precision: ")
    assert precision_notes(RuntimeConfig(precision="auto")) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # preflight's pod is not the training's
    assert precision_notes(RuntimeConfig(precision="bf16")) == []


def test_the_plan_has_no_note_where_bf16_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    has_bf16(monkeypatch, True)
    assert precision_notes(RuntimeConfig(precision="bf16")) == []


@pytest.mark.parametrize(
    ("cores", "settings", "expected"),
    [
        (2, {}, 2),
        (4, {"processes": 2}, 2),
        (1, {"processes": 2}, 1),
        (8, {}, 8),
        (16, {}, 8),  # torch counts cores, not their hardware threads
        (8, {"processes": 2}, 4),
        (2, {"threads": 6}, 6),
    ],
)
def test_threads_are_those_that_the_container_may_use(
    monkeypatch: pytest.MonkeyPatch, cores: int, settings: dict[str, int], expected: int
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    prepare(RuntimeConfig.model_validate(settings))
    assert chosen == [expected]

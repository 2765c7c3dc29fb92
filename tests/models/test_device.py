from __future__ import annotations

import pytest
import torch

from embedline.models.device import bf16_instructions


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

from __future__ import annotations

import logging

import pytest

from embedline.errors import InputError
from embedline.models import attention
from embedline.models.attention import attention_for
from embedline.models.log_once import info_once


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: True)


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    info_once.cache_clear()


def test_without_the_package_it_is_sdpa() -> None:
    assert attention_for("auto", "cuda", bf16=True) == "sdpa"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("choice", "device", "bf16", "expected"),
    [
        ("auto", "cuda", True, "flash_attention_2"),
        ("auto", "cuda", False, "sdpa"),
        ("auto", "cuda", None, "sdpa"),
        ("auto", "cpu", True, "plain"),
        ("plain", "cuda", True, "plain"),
        ("sdpa", "cpu", True, "sdpa"),
        ("sdpa", "cuda", True, "sdpa"),
        ("flash_attention_2", "cuda", True, "flash_attention_2"),
        ("flash_attention_2", "cuda", None, "flash_attention_2"),
    ],
)
def test_flash_attention_is_used_where_it_can_run(
    choice: str, device: str, bf16: bool | None, expected: str
) -> None:
    assert attention_for(choice, device, bf16=bf16) == expected


def test_the_chosen_kernel_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            attention_for("auto", "cuda")
    assert [record.message for record in caplog.records] == [
        "Attention: sdpa (the package flash-attn is not installed)."
    ]


def test_flash_attention_without_the_package_is_refused() -> None:
    with pytest.raises(InputError, match="flash-attn is not installed") as error:
        attention_for("flash_attention_2", "cuda", bf16=True)
    assert error.value.where == "runtime.attention"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("device", "bf16", "reason"), [("cpu", True, "needs a GPU"), ("cuda", False, "fp32")]
)
def test_flash_attention_where_it_cannot_run_is_refused(device: str, bf16: bool, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        attention_for("flash_attention_2", device, bf16=bf16)
    assert error.value.where == "runtime.attention"

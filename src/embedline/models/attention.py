"""Which attention kernel a model runs on."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal

from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from embedline.errors import InputError
from embedline.models.plain_attention import PLAIN

Attention = Literal["sdpa", "flash_attention_2", "plain"]
_KNOWN_BY: dict[Attention, str] = {  # what a class of transformers says of its code
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "plain": "_supports_attention_backend",
}
_log = logging.getLogger(__name__)


def attention_for(choice: str, device_type: str, *, bf16: bool | None = None) -> Attention:
    """The kernel to load a model with; what auto comes to is said once in the log.

    Args:
        choice: `runtime.attention`: auto, sdpa, flash_attention_2 or plain.
        device_type: cpu, cuda, …
        bf16: the model runs under bf16 autocast; None where that is not known. Flash attention has no fp32,
            so it is chosen only where bf16 is certain, and refused only where it is certain to fail.

    Raises:
        InputError: flash attention 2 is asked for where it cannot run.
    """
    reason = _why_not_flash(device_type, (choice != "auto") if bf16 is None else bf16)
    if choice == "flash_attention_2" and reason:
        raise InputError(
            f"flash_attention_2 cannot run: {reason}.",
            where="runtime.attention",
            fix="Use auto or sdpa; or a GPU, runtime.precision bf16 and `pip install embedline[gpu]`.",
        )
    if choice == "sdpa":
        return "sdpa"
    if choice == PLAIN or (device_type == "cpu" and choice == "auto"):
        _say("Attention: plain matrix products in training, sdpa else (this runs on cpu).")
        return "plain"
    if reason:
        _say(f"Attention: sdpa ({reason}).")
        return "sdpa"
    _say("Attention: flash attention 2.")
    return "flash_attention_2"


def use_attention(backbone: PreTrainedModel, kernel: Attention) -> None:
    """Switch a loaded backbone to the kernel; one whose code does not know it (MPNet) keeps what it has."""
    if getattr(backbone, _KNOWN_BY[kernel], False):
        backbone.set_attn_implementation(kernel)


def _why_not_flash(device_type: str, bf16: bool) -> str:
    if device_type != "cuda":
        return f"flash attention needs a GPU, and this runs on {device_type}"
    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed"
    return "" if bf16 else "flash attention has no fp32"


@cache
def _say(message: str) -> None:
    _log.info(message)

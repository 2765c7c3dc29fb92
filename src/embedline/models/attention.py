"""The attention kernel that a model runs on."""

from __future__ import annotations

import logging
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_flash_attn_2_available

from embedline.errors import InputError
from embedline.models.log_once import info_once
from embedline.models.plain_attention import PLAIN

Attention = Literal["sdpa", "flash_attention_2", "plain"]
# Attributes by which a transformers class declares its support.
_SUPPORT_FLAGS: dict[Attention, tuple[str, ...]] = {
    "sdpa": ("_supports_sdpa",),
    "flash_attention_2": ("_supports_flash_attn",),
    # Both: plain passes evaluation to sdpa, which caps no scores (Gemma 2) and has no sinks (gpt-oss).
    "plain": ("_supports_attention_backend", "_supports_sdpa"),
}
_log = logging.getLogger(__name__)


def attention_for(choice: str, device_type: str, *, bf16: bool | None = None) -> Attention:
    """Choose the kernel to load a model with; the choice that auto makes is logged once.

    Args:
        choice: `runtime.attention`: auto, sdpa, flash_attention_2 or plain.
        device_type: cpu, cuda, …
        bf16: whether the model runs under bf16 autocast; None when unknown. Flash attention has no fp32, so
            it is chosen only where bf16 is certain, and refused only where it is certain to fail.

    Raises:
        InputError: flash attention 2 is requested where it cannot run.
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
        info_once(_log, "Attention: plain matrix products in training, sdpa otherwise (device: cpu).")
        return "plain"
    if reason:
        info_once(_log, f"Attention: sdpa ({reason}).")
        return "sdpa"
    info_once(_log, "Attention: flash attention 2.")
    return "flash_attention_2"


def use_attention(backbone: PreTrainedModel, kernel: Attention) -> None:
    """Switch a loaded backbone to the kernel; a class without it (MPNet, Gemma 2) keeps its own."""
    if _supports(backbone, kernel):
        backbone.set_attn_implementation(kernel)


def use_fp32_attention(backbone: PreTrainedModel) -> None:
    """Switch a backbone from flash attention, which has no fp32, to the kernel of its class that has."""
    if backbone.config._attn_implementation.startswith("flash"):
        backbone.set_attn_implementation("sdpa" if _supports(backbone, "sdpa") else "eager")


def _supports(backbone: PreTrainedModel, kernel: Attention) -> bool:
    return all(getattr(backbone, flag, False) for flag in _SUPPORT_FLAGS[kernel])


def _why_not_flash(device_type: str, bf16: bool) -> str:
    """Return why flash attention 2 cannot run; empty when it can."""
    if device_type != "cuda":
        return f"flash attention needs a GPU, and the device is {device_type}"
    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed"
    return "" if bf16 else "flash attention has no fp32"


def flash_attention(
    module: nn.Module, *inputs: Any, sliding_window: int | None = None, **more: Any
) -> tuple[Tensor, None]:
    """Run transformers' flash attention with the window that masks have for a decoder made bidirectional.

    transformers passes flash attention one token fewer to each side than config.json states, because a causal
    window counts the token itself; the masks of other kernels reach as far as stated. ModernBERT, which is
    bidirectional by itself, makes up for it in its own code.
    """
    made_bidirectional = getattr(module, "is_causal", False) and more.get("is_causal") is False
    if sliding_window is not None and made_bidirectional:
        sliding_window += 1
    kernel: Any = flash_attention_forward
    mixed: tuple[Tensor, None] = kernel(module, *inputs, sliding_window=sliding_window, **more)
    return mixed


ALL_ATTENTION_FUNCTIONS.register("flash_attention_2", flash_attention)

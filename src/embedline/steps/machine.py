"""The machine's settings, applied once in a step's process."""

from __future__ import annotations

from embedline.config.training import RuntimeConfig


def prepare(runtime: RuntimeConfig) -> bool:
    """Set the threads; True when the step should work under bf16 autocast."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    elif runtime.processes > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // runtime.processes))
    return runtime.precision == "bf16"


def attention(runtime: RuntimeConfig) -> str:
    """The attention kernel that models are loaded with on this machine."""
    from embedline.models.attention import attention_for
    from embedline.models.device import best_device

    return attention_for(runtime.attention, best_device().type, bf16=runtime.precision == "bf16")

"""The runtime settings of a step's process: threads, allocator, precision, attention kernel."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

from embedline.config.training import RuntimeConfig
from embedline.models.log_once import info_once
from embedline.resources import usable_cores

if TYPE_CHECKING:
    from embedline.models.attention import Attention

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

_log = logging.getLogger(__name__)


def prepare(runtime: RuntimeConfig, *, training: bool = False) -> bool:
    """Set the threads and, for training, the allocator; return whether the step runs under bf16 autocast."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(thread_count(runtime))
    if training:
        _keep_freed_memory()
    return works_in_bf16(runtime)


def thread_count(runtime: RuntimeConfig) -> int:
    """Return the threads of each process: by default those that torch takes, at most a share of the cores."""
    import torch

    share = usable_cores() // runtime.processes
    return runtime.threads or max(1, min(torch.get_num_threads(), share))


def works_in_bf16(runtime: RuntimeConfig) -> bool:
    """Return whether `runtime.precision` means bf16 on this machine; the choice that auto makes is logged."""
    from embedline.models.device import best_device, bf16_is_faster

    if runtime.precision != "auto":
        return runtime.precision == "bf16"
    faster, reason = bf16_is_faster(best_device())
    info_once(_log, f"Precision: {'bf16' if faster else 'fp32'} ({reason}).")
    return faster


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, instead of giving it back to the system at once.

    A training frees and takes the same large blocks again at every chunk. Given back, each comes anew page
    by page, zeroed, which took a fifth of the time (tests/benchmarks/README.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's alone
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def attention(runtime: RuntimeConfig) -> Attention:
    """Return the attention kernel that models are loaded with on this machine."""
    from embedline.models.attention import attention_for
    from embedline.models.device import best_device

    return attention_for(runtime.attention, best_device().type, bf16=works_in_bf16(runtime))

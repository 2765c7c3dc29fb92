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
    from embedline.models.layer_work import LayerWork

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

_log = logging.getLogger(__name__)


def prepare(runtime: RuntimeConfig, *, training: bool = False) -> None:
    """Set the threads and, for training, the allocator."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(thread_count(runtime))
    if training:
        _keep_freed_memory()


def thread_count(runtime: RuntimeConfig) -> int:
    """Return the threads of each process: by default those that torch takes, at most a share of the cores."""
    import torch

    share = usable_cores() // runtime.processes
    return runtime.threads or max(1, min(torch.get_num_threads(), share))


def works_in_bf16(runtime: RuntimeConfig, work: LayerWork) -> bool:
    """Return whether `work` is done under bf16 autocast; the choice of auto is logged.

    Auto takes what is faster for this work: training and encoding may differ, and so may models.
    """
    if runtime.precision != "auto":
        return runtime.precision == "bf16"
    bf16, reason = faster_precision(work, thread_count(runtime))
    info_once(_log, f"Precision: {'bf16' if bf16 else 'fp32'} ({reason}).")
    return bf16


def faster_precision(work: LayerWork, threads: int) -> tuple[bool, str]:
    """Return whether bf16 is faster than fp32 for `work` on this machine, and why.

    A GPU's tensor cores are many times faster in bf16, and without instructions bf16 is emulated; what a
    processor's instructions bring is measured.
    """
    from embedline.models.device import NO_BF16, best_device, bf16_instructions
    from embedline.models.speed import measured_speed

    device = best_device()
    names = ", ".join(bf16_instructions(device))
    if not names:
        return False, NO_BF16
    if device.type == "cuda":
        return True, names
    speed = measured_speed(work, device, threads)
    return speed.bf16_is_faster, f"{speed.teraflops()} with {names}; a layer of {work.describe()}"


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
    from embedline.models.device import best_device, bf16_instructions

    device = best_device()
    auto = runtime.precision == "auto" and device.type == "cuda" and bool(bf16_instructions(device))
    return attention_for(runtime.attention, device.type, bf16=auto or runtime.precision == "bf16")

"""The device that models run on, and whether it is fast in bf16."""

from __future__ import annotations

import json
import platform
import time
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from torch import nn

from embedline.artifacts.durable import write_json

# bf16 instructions of x86 and ARM. A CPU without any of them computes bf16 products number by number.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
NO_BF16 = "this device has no bf16 instructions and emulates them"
# Units for matrix products, several times faster in bf16. Vector instructions alone may save nothing.
_MATRIX_UNITS = {"tensor cores", "amx_bf16"}
_MIN_GAIN = 1.2  # fp32 unless bf16 is clearly faster, so that noise does not decide
_TOKENS, _WIDTH, _REPEATS = 512, 384, 7


def best_device() -> torch.device:
    """Return the GPU when there is one, for training, mining, evaluation and teachers alike."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processor_name() -> str:
    """Return the processor's model name; of a machine that states none, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def bf16_instructions(device: torch.device) -> list[str]:
    """Return the names of the device's bf16 instructions; empty where bf16 is emulated."""
    if device.type == "cuda":
        return ["tensor cores"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    has = torch.cpu.get_capabilities()
    return [name for name in _BF16_INSTRUCTIONS if has.get(name)]


def bf16_is_faster(device: torch.device) -> tuple[bool, str]:
    """Return whether models run faster in bf16 than in fp32 on the device, and why, for the log.

    Without instructions bf16 is emulated, and matrix units are always faster. What vector instructions gain
    depends on the processor, so it is measured: once a machine, in about 0.2 seconds, and kept beside the
    models downloaded from the hub. The steps of a run, a resumed one and the processes of one training agree.
    """
    instructions = bf16_instructions(device)
    if not instructions:
        return False, NO_BF16
    names = ", ".join(instructions)
    if _MATRIX_UNITS & set(instructions):
        return True, names
    gain = _bf16_gain(device, torch.get_num_threads())
    return gain >= _MIN_GAIN, f"{names}; a layer takes {1 / gain:.2f} of its fp32 time in bf16"


@cache
def _bf16_gain(device: torch.device, threads: int) -> float:
    """Return the measured gain of this processor; measure it when no process has done so before."""
    key = f"{processor_name()}, torch {torch.__version__}, threads {threads}"
    file = Path(HF_HOME) / "embedline" / "bf16.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if key not in known:
                known[key] = _measured_gain(device)
                write_json(file, known)
            return float(known[key])
    except (OSError, ValueError):  # a folder that cannot be written to, a damaged file
        return _measured_gain(device)


def _measured_gain(device: torch.device) -> float:
    """Divide the fp32 time of a training step of one layer by its bf16 time.

    The best of several, in turn: other programs make single ones slower.
    """
    with torch.random.fork_rng(devices=[]):
        layer, inputs = nn.Linear(_WIDTH, 4 * _WIDTH), torch.rand(_TOKENS, _WIDTH)
    best = {True: float("inf"), False: float("inf")}
    for _ in range(_REPEATS):
        for bf16 in best:
            best[bf16] = min(best[bf16], _seconds(layer.to(device), inputs.to(device), bf16))
    return best[False] / best[True]


def _seconds(layer: nn.Module, inputs: torch.Tensor, bf16: bool) -> float:
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        output = layer(inputs)
    output.float().sum().backward()
    return time.perf_counter() - start

"""The measured speed of a model's layers on this machine, in fp32 and in bf16.

What is faster depends on the processor and on the shapes: bf16 instructions can be slower than fp32 ones, and
the casts of autocast can cost small layers more than the products save. So one layer of the model's shapes is
timed in both, once a machine, in a fraction of a second.

On a CPU one core is timed by its own clock, which other programs do not slow down. What all threads gain over
it is measured too, by the wall's clock, but only while the machine is idle.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from torch import Tensor, nn
from torch.nn import functional as F

from embedline.artifacts.durable import write_json
from embedline.models.device import bf16_instructions, processor_name
from embedline.models.layer_work import LayerWork

_MIN_GAIN = 1.1  # fp32 unless bf16 is clearly faster, so that noise does not decide
_BUDGET_S = 0.2
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 20
_LOCK_S = 60
_BUSY = 1.1  # wall time over a core's own: above, other programs use the cores
_EFFICIENCY = 0.8  # of each thread, where that cannot be measured


class Speed(NamedTuple):
    """The seconds that `work` takes one core, or a GPU.

    Args:
        bf16: None where bf16 is emulated, and not measured.
        gain: how many times faster all threads are than one.
    """

    work: LayerWork
    fp32: float
    bf16: float | None
    gain: float = 1.0

    @property
    def bf16_is_faster(self) -> bool:
        """Return whether bf16 is clearly the faster one."""
        return self.bf16 is not None and self.fp32 >= _MIN_GAIN * self.bf16

    @property
    def name(self) -> str:
        """Return the faster precision's name in the config."""
        return "bf16" if self.bf16_is_faster else "fp32"

    def seconds(self, *, bf16: bool) -> float:
        """Return the seconds of all threads in a precision; an emulated bf16 counts as fp32."""
        return (self.bf16 if bf16 and self.bf16 is not None else self.fp32) / self.gain

    def teraflops(self) -> str:
        """Return both numbers: `fp32 0.30, bf16 0.05 TFLOP/s a core`."""
        fp32 = f"fp32 {self.work.operations / self.fp32 / 1e12:.2g}"
        bf16 = "" if self.bf16 is None else f", bf16 {self.work.operations / self.bf16 / 1e12:.2g}"
        return f"{fp32}{bf16} TFLOP/s a core"


@cache
def measured_speed(work: LayerWork, device: torch.device, threads: int) -> Speed:
    """Return the speed of a layer's work; measure it when no process of this machine has done so before.

    It is kept beside the models downloaded from the hub. The steps of a run, a resumed one and the processes
    of one training agree.
    """
    file = speeds_file()
    key = f"{_machine(device, threads)}: {work.describe()}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=_LOCK_S):
            known = _read(file)
            if (speed := _kept(known.get(key))) is None:
                speed = _measure(work, device, threads)
                write_json(file, {**known, key: {**speed._asdict(), "work": work._asdict()}})
    except OSError:  # a folder that cannot be written to, a lock that is not given back
        speed = _measure(work, device, threads)
    return speed


def kept_speeds(device: torch.device, threads: int) -> list[Speed]:
    """Return all that has been measured of this machine with so many threads."""
    try:
        known = _read(speeds_file())
    except OSError:
        return []
    machine = f"{_machine(device, threads)}: "
    kept = (_kept(value) for key, value in known.items() if key.startswith(machine))
    return [speed for speed in kept if speed is not None]


def speeds_file() -> Path:
    """Return the file that keeps this user's measurements; without it they are made anew."""
    return Path(HF_HOME) / "embedline" / "speeds.json"


def _machine(device: torch.device, threads: int) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return f"{name}, torch {torch.__version__}, threads {threads}"


def _read(file: Path) -> dict[str, Any]:
    """Read the file of measurements; empty where there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept(value: Any) -> Speed | None:
    """Return a kept measurement; None where it is not one."""
    try:
        speed = Speed(**{**value, "work": LayerWork(**value["work"])})
    except (TypeError, KeyError):
        return None
    times = [speed.fp32, speed.gain] if speed.bf16 is None else [speed.fp32, speed.bf16, speed.gain]
    return speed if all(_is_time(time) for time in times) else None


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and value > 0


def _measure(work: LayerWork, device: torch.device, threads: int) -> Speed:
    """Time the work in each precision, and the gain of all threads in the faster one."""
    kinds = [False, True] if bf16_instructions(device) else [False]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        layer = _Layer(work).to(device)
        states_NTD = torch.rand(work.texts, work.length, work.width).to(device)
    if device.type != "cpu":
        best = _best(layer, states_NTD, kinds)
        return Speed(work, best[False].wall, best[True].wall if True in best else None)
    with _threads(1):
        best = _best(layer, states_NTD, kinds)
    speed = Speed(work, best[False].own, best[True].own if True in best else None)
    alone = best[speed.bf16_is_faster]
    if threads == 1:
        return speed
    if alone.wall > _BUSY * alone.own:
        return speed._replace(gain=_EFFICIENCY * threads)
    with _threads(threads):
        together = _best(layer, states_NTD, [speed.bf16_is_faster])[speed.bf16_is_faster]
    return speed._replace(gain=max(1.0, alone.own / together.wall))


class _Took(NamedTuple):
    """Seconds of the wall's clock, and of this thread's own."""

    wall: float
    own: float


def _best(layer: _Layer, states_NTD: Tensor, kinds: Sequence[bool]) -> dict[bool, _Took]:
    """Time the layer in each precision, in turn; each time is the best of several."""
    best = dict.fromkeys(kinds, _Took(float("inf"), float("inf")))
    began = time.perf_counter()
    for done in range(1, _MOST_ROUNDS + 1):
        for bf16 in kinds:
            took = _run(layer, states_NTD, bf16)
            best[bf16] = _Took(*map(min, best[bf16], took))
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > _BUDGET_S:
            break
    return best


def _run(layer: _Layer, states_NTD: Tensor, bf16: bool) -> _Took:
    """Run the layer once; in training, its backward pass too, which on a CPU is done by this thread."""
    _wait(states_NTD.device)
    wall, own = time.perf_counter(), time.thread_time()
    autocast = torch.autocast(states_NTD.device.type, torch.bfloat16, enabled=bf16)
    training = layer.work.training
    with torch.set_grad_enabled(training):
        with autocast:
            output = layer(states_NTD.requires_grad_(training))
        if training:
            output.float().sum().backward()
            layer.zero_grad()
    _wait(states_NTD.device)
    return _Took(time.perf_counter() - wall, time.thread_time() - own)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Layer(nn.Module):
    """A transformer's layer of the given widths: attention and a feed-forward part, with norms before them.

    Attention is as a CPU computes it (models.plain_attention): products while training, else sdpa.
    """

    def __init__(self, work: LayerWork) -> None:
        super().__init__()
        self.work = work
        self.norms = nn.ModuleList(nn.LayerNorm(work.width) for _ in range(2))
        self.queries_keys_values = nn.Linear(work.width, 3 * work.width)
        self.mixed = nn.Linear(work.width, work.width)
        self.up = nn.Linear(work.width, work.inner * (2 if work.gated else 1))
        self.down = nn.Linear(work.inner, work.width)

    def forward(self, states_NTD: Tensor) -> Tensor:
        states_NTD = states_NTD + self.mixed(self._attend(self.norms[0](states_NTD)))
        inner = self.up(self.norms[1](states_NTD))
        if self.work.gated:
            inner, gate = inner.chunk(2, dim=-1)
            inner = F.gelu(inner) * gate
        else:
            inner = F.gelu(inner)
        output: Tensor = states_NTD + self.down(inner)
        return output

    def _attend(self, states_NTD: Tensor) -> Tensor:
        count, length, width = states_NTD.shape
        parts = self.queries_keys_values(states_NTD).view(count, length, 3, self.work.heads, -1)
        queries_NHTK, keys_NHTK, values_NHTK = parts.permute(2, 0, 3, 1, 4)
        if self.work.training and states_NTD.device.type == "cpu":
            scores = queries_NHTK @ keys_NHTK.transpose(-1, -2) * queries_NHTK.shape[-1] ** -0.5
            mixed_NHTK = scores.softmax(-1).to(values_NHTK.dtype) @ values_NHTK
        else:
            mixed_NHTK = F.scaled_dot_product_attention(queries_NHTK, keys_NHTK, values_NHTK)
        mixed_NTD: Tensor = mixed_NHTK.transpose(1, 2).reshape(count, length, width)
        return mixed_NTD

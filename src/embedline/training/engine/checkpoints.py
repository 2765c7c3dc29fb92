"""Checkpoints that survive: complete and undamaged, or not used at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from embedline.artifacts.record import write_json
from embedline.errors import StepError, first_line
from embedline.models.device import bf16_instructions
from embedline.training.engine import processes

COMPLETE = "complete"
PROGRESS = "progress.json"
KEPT = 2  # the newest may turn out to be damaged

_ADAM_COPIES = 3  # a parameter and its two moments


def newest_whole(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end and is as it was written; worse ones are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        problem = _damage(checkpoint)
        if problem is None:
            return checkpoint
        if problem:
            _say(f"{checkpoint.name} is damaged ({problem}); the one before it is used")
        shutil.rmtree(checkpoint)
    return None


def mark_complete(checkpoint: Path) -> None:
    """Write the mark, with the size and checksum of every file, once all of them are on the disk."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    marks = {path.relative_to(checkpoint).as_posix(): [path.stat().st_size, _crc(path)] for path in files}
    for path in files:
        _to_disk(path)
    draft = checkpoint / f".{COMPLETE}"
    draft.write_text(json.dumps(marks), encoding="utf-8")
    _to_disk(draft)
    draft.rename(checkpoint / COMPLETE)
    _to_disk(checkpoint)


def remove_old(folder: Path) -> None:
    """Keep the last two; to be called when the newest is complete, because until then the others count.

    By their steps, not by their times of writing, which another machine's clock or a copy may have changed.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True)[KEPT:]:
        shutil.rmtree(checkpoint)


def require_room(folder: Path, module: nn.Module) -> None:
    """Refuse to begin a checkpoint that the disk has no room for.

    Raises:
        StepError: too little is free. The checkpoints before it are untouched.
    """
    needed = _bytes_of_last(folder) or _bytes_at_most(module)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StepError(
            f"a checkpoint needs {_gb(needed)}, {_gb(free)} are free.",
            where=str(folder),
            fix="Free some space, and start the run again: it resumes.",
        )


@contextmanager
def writing(checkpoint: Path) -> Iterator[None]:
    """What the disk refuses is told in words: the libraries that write there have no common error for it.

    Raises:
        StepError: the checkpoint was not written to its end. Those before it are untouched.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StepError(
            f"{checkpoint.name} could not be written ({first_line(error)}); "
            f"{_gb(shutil.disk_usage(checkpoint.parent).free)} are free.",
            where=str(checkpoint.parent),
            fix="Make room there, or let it be written; the next try goes on from the checkpoint before it.",
        ) from error


def write_progress(checkpoint: Path, values: dict[str, Any]) -> None:
    """What the trainer does not keep: sums of metrics, skipped steps, the token budget; and the machine."""
    write_json(checkpoint / PROGRESS, {**values, "machine": machine()})


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What `write_progress` wrote; says so when this machine would not go on bit for bit."""
    values: dict[str, Any] = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
    then, now = values.pop("machine"), machine()
    changed = [f"{name} {then.get(name)} → {now[name]}" for name in now if then.get(name) != now[name]]
    if changed and processes.is_first():
        _say(
            f"resumed on another machine ({', '.join(changed)}): the weights will differ from those of an "
            "uninterrupted training in their last digits"
        )
    return values


def machine() -> dict[str, Any]:
    """What the last digits of a sum depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "processor": _processor(),
        "instructions": " ".join(
            [torch.backends.cpu.get_cpu_capability(), *bf16_instructions(torch.device("cpu"))]
        ),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "processes": processes.count(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: None when nothing is, empty when it was never finished."""
    try:
        marks = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except ValueError:
        return f"{COMPLETE} is not readable"
    for name, (size, crc) in marks.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes of {size}"
        if _crc(path) != crc:
            return f"{name} has changed"
    return None


def _crc(path: Path) -> int:
    """CRC-32: a guard against torn writes, not against anybody."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _bytes_of_last(folder: Path) -> int:
    whole = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    if not whole:
        return 0
    return sum(path.stat().st_size for path in max(whole, key=_step_of).rglob("*") if path.is_file())


def _bytes_at_most(module: nn.Module) -> int:
    """Of the first checkpoint: parameters and buffers, and Adam's moments of what is trained."""
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    others = [*module.buffers(), *(p for p in module.parameters() if not p.requires_grad)]
    return 2**20 + _ADAM_COPIES * trained + sum(t.numel() * t.element_size() for t in others)


def _gb(size: int) -> str:
    return f"{size / 2**30:.2f} GB"


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201

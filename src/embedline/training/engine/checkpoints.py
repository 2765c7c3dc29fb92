"""Checkpoints that a training resumes from only when they are complete and undamaged."""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from embedline.artifacts.durable import flush, flush_tree, put_in_place, write_json
from embedline.errors import StepError, first_line
from embedline.models.device import bf16_instructions, processor_name
from embedline.training.engine import processes

COMPLETE = "complete"
PROGRESS = "progress.json"
KEPT = 2  # the older one is the reserve if the newest is damaged

_ADAM_COPIES = 3  # a parameter and its two moments

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingProgress:
    """The part of a checkpoint that the trainer does not save itself.

    Args:
        metrics: sums and counts of the metrics since the last logged step, as `Progress.state` returns them.
        bad_steps: steps skipped so far.
        budget: tokens of a chunk and tokens that may keep their graph; None without a budget.
    """

    metrics: dict[str, Any]
    bad_steps: int
    budget: tuple[int, int | None] | None


def newest_whole(folder: Path) -> Path | None:
    """Return the newest complete and undamaged checkpoint, or None; newer ones that are not are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        problem = _damage(checkpoint)
        if problem is None:
            return checkpoint
        if problem:
            _log.warning(f"{checkpoint.name} is damaged ({problem}); the one before it is used")
        shutil.rmtree(checkpoint)
    return None


def mark_complete(checkpoint: Path) -> None:
    """Write the mark of a complete checkpoint, with each file's size and checksum, after all files."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    marks = {path.relative_to(checkpoint).as_posix(): [path.stat().st_size, _crc(path)] for path in files}
    flush_tree(checkpoint)
    draft = checkpoint / f".{COMPLETE}"
    draft.write_text(json.dumps(marks), encoding="utf-8")
    put_in_place(draft, checkpoint / COMPLETE)
    flush(checkpoint.parent)


def remove_old(folder: Path) -> None:
    """Remove all checkpoints but the last two; to be called when the newest is complete.

    They are ordered by their steps, not by their times of writing, which another machine's clock or a copy
    may have changed.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True)[KEPT:]:
        shutil.rmtree(checkpoint)


def require_disk_space(folder: Path, module: nn.Module) -> None:
    """Check that the disk has space for the next checkpoint.

    Raises:
        StepError: too little is free. The earlier checkpoints are untouched.
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
    """Turn any error of writing a checkpoint into a `StepError`: the libraries have no common one.

    Raises:
        StepError: the checkpoint is not complete. The earlier ones are untouched.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StepError(
            f"{checkpoint.name} could not be written ({first_line(error)}); "
            f"{_gb(shutil.disk_usage(checkpoint.parent).free)} are free.",
            where=str(checkpoint.parent),
            fix="Free some space there, or allow writing; the next try resumes from the one before it.",
        ) from error


def write_progress(checkpoint: Path, progress: TrainingProgress) -> None:
    """Write `progress` into a checkpoint, together with the machine that it was reached on."""
    write_json(checkpoint / PROGRESS, {**asdict(progress), "machine": machine()})


def read_progress(checkpoint: Path) -> TrainingProgress:
    """Read what `write_progress` wrote; log a line when this machine would not continue bit for bit."""
    values: dict[str, Any] = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
    then, now = values.pop("machine"), machine()
    changed = [f"{name} {then.get(name)} → {now[name]}" for name in now if then.get(name) != now[name]]
    if changed and processes.is_first():
        _log.warning(
            f"resumed on another machine ({', '.join(changed)}): the weights will differ from those of an "
            "uninterrupted training in their last digits"
        )
    chunk_resident = values["budget"]
    budget = None if chunk_resident is None else (chunk_resident[0], chunk_resident[1])
    return TrainingProgress(values["metrics"], values["bad_steps"], budget)


def machine() -> dict[str, Any]:
    """Describe what the last digits of a sum depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "processor": processor_name(),
        "instructions": " ".join(
            [torch.backends.cpu.get_cpu_capability(), *bf16_instructions(torch.device("cpu"))]
        ),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "processes": processes.world_size(),
        "torch": torch.__version__,
    }


def _damage(checkpoint: Path) -> str | None:
    """Name what is wrong with a checkpoint: None for nothing, empty when it was never finished."""
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
    """Return a file's CRC-32: it guards against torn writes, not against an attacker."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            value = zlib.crc32(block, value)
    return value


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _bytes_of_last(folder: Path) -> int:
    whole = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    if not whole:
        return 0
    return sum(path.stat().st_size for path in max(whole, key=_step_of).rglob("*") if path.is_file())


def _bytes_at_most(module: nn.Module) -> int:
    """Bound the size of the first checkpoint: parameters, buffers, and Adam's moments of what is trained."""
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    others = [*module.buffers(), *(p for p in module.parameters() if not p.requires_grad)]
    return 2**20 + _ADAM_COPIES * trained + sum(t.numel() * t.element_size() for t in others)


def _gb(size: int) -> str:
    return f"{size / 2**30:.2f} GB"

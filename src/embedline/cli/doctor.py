"""doctor: whether this machine can run the line."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show
from embedline.errors import EmbedlineError, without_passwords

PACKAGES = (
    "embedline",
    "torch",
    "transformers",
    "sentence-transformers",
    "datasets",
    "mteb",
    "mlflow",
    "daft",
)
OPTIONAL = {"kfp": "pipelines", "onnx": "cpu", "onnxruntime": "cpu"}


@command
def doctor(work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False) -> int:
    """Check versions, threads, precision, disk, tracker and ONNX runtime; 1 when something is missing."""
    checks = [
        _try("python", platform.python_version),
        *(_try(name, functools.partial(importlib.metadata.version, name)) for name in PACKAGES),
        *(_try(name, functools.partial(importlib.metadata.version, name), x) for name, x in OPTIONAL.items()),
        _try("cpu", _cpu),
        _try("accelerator", _accelerator),
        _try("memory", _memory),
        _try("disk", lambda: _disk(work)),
        _try("onnx providers", _providers),
        _try("tracker", lambda: _tracker(uri, work)),
    ]
    if as_json:
        show({"ok": all(check["ok"] for check in checks), "checks": checks})
    else:
        for check in checks:
            typer.echo(f"{'ok ' if check['ok'] else 'BAD'}  {check['name']:<24}{check['value']}")
    return 0 if all(check["ok"] for check in checks) else 1


def _try(name: str, look: Callable[[], str], extra: str = "") -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "value": look()}
    except importlib.metadata.PackageNotFoundError:
        wanted = f"embedline[{extra}]" if extra else name
        return {"name": name, "ok": False, "value": f"not installed: pip install '{wanted}'"}
    except EmbedlineError as error:
        return {"name": name, "ok": False, "value": str(error)}
    except Exception as error:  # a broken library can raise anything: that is what is looked for
        return {"name": name, "ok": False, "value": without_passwords(f"{type(error).__name__}: {error}")}


def _cpu() -> str:
    import torch

    from embedline.models.device import bf16_instructions

    fast = bf16_instructions(torch.device("cpu"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bf16 = f"bf16 fast ({', '.join(fast)})" if fast else "bf16 emulated: use precision auto or fp32"
    return f"{cores} cores, torch uses {torch.get_num_threads()} threads, {bf16}"


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: the CPU does the work"
    return f"{torch.cuda.get_device_name(0)}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"


def _memory() -> str:
    from embedline.planning.checks.machine import check_memory

    return f"{check_memory():.1f} GB available"


def _disk(work: Path) -> str:
    from embedline.artifacts.workspace import check_workspace
    from embedline.planning.checks.machine import check_disk

    check_workspace(work)
    total = shutil.disk_usage(work).total / 1e9
    return f"{check_disk(work):.1f} of {total:.1f} GB free at {work.resolve()}"


def _providers() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _tracker(uri: str, work: Path) -> str:
    from embedline.cli.registry import tracker

    return tracker(uri, work)

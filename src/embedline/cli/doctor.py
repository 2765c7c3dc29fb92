"""The command `doctor`: whether this machine can run the line."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import typer

from embedline.artifacts.workspace import Workspace, check_workspace
from embedline.cli.shared import WORK, AsJson, Debug, Uri, Work, command, show
from embedline.cli.work_folder import tracking_uri
from embedline.config.registry import TrackingConfig
from embedline.config.training import RuntimeConfig
from embedline.environment import caches_found
from embedline.errors import EmbedlineError, nearest_folder
from embedline.planning.checks.machine import check_disk, check_memory
from embedline.registry.server import exists
from embedline.registry.tracking_target import tracking_target
from embedline.resources import cores_found, memory_found

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
OPTIONAL = {"kfp": "pipelines", "onnx": "cpu", "onnxruntime": "cpu"}  # package → extra of embedline


_USUAL = {"model_type": "bert", "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}


class Check(NamedTuple):
    """The result of one check.

    Args:
        value: what was found, or why the check failed and what to do.
    """

    name: str
    ok: bool
    value: str


@command
def doctor(work: Work = WORK, uri: Uri = "", as_json: AsJson = False, debug: Debug = False) -> int:
    """Check whether this machine can run the line: packages, CPU, GPU, memory, disk, tracking server.

    The exit code is 1 when a check fails.
    """
    checks = [
        _check("python", platform.python_version),
        *(_check(name, functools.partial(importlib.metadata.version, name)) for name in PACKAGES),
        *(
            _check(name, functools.partial(importlib.metadata.version, name), extra)
            for name, extra in OPTIONAL.items()
        ),
        _check("cpu", _cpu),
        _check("accelerator", _accelerator),
        _check("precision", _precision),
        _check("memory", _memory),
        _check("home", caches_found),
        _check("disk", lambda: _disk(work)),
        _check("onnx providers", _providers),
        _check("tracker", lambda: _tracker(uri, work)),
    ]
    if as_json:
        show({"ok": all(check.ok for check in checks), "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            typer.echo(f"{'ok ' if check.ok else 'BAD'}  {check.name:<24}{check.value}")
    return 0 if all(check.ok for check in checks) else 1


def _check(name: str, measure: Callable[[], str], extra: str = "") -> Check:
    """Run one check; any error makes it fail.

    Args:
        extra: the extra of embedline that installs the package.
    """
    try:
        return Check(name, True, measure())
    except importlib.metadata.PackageNotFoundError:
        package = f"embedline[{extra}]" if extra else name
        return Check(name, False, f"not installed: pip install '{package}'")
    except EmbedlineError as error:
        return Check(name, False, str(error))
    except Exception as error:  # a broken library can raise anything, and finding it is the point
        return Check(name, False, f"{type(error).__name__}: {error}")


def _cpu() -> str:
    import torch

    from embedline.models.device import NO_BF16, bf16_instructions
    from embedline.models.machine import thread_count

    names = ", ".join(bf16_instructions(torch.device("cpu"))) or NO_BF16
    return f"{cores_found()}, torch uses {thread_count(RuntimeConfig())} threads, bf16: {names}"


def _precision() -> str:
    """Return what precision: auto takes for a model of a usual width, and for all that were measured here."""
    from embedline.models.device import best_device
    from embedline.models.layer_work import encoding_work, training_work
    from embedline.models.machine import faster_precision, thread_count
    from embedline.models.speed import kept_speeds, speeds_file

    threads = thread_count(RuntimeConfig())
    lines = {}
    for work in (training_work(_USUAL, tokens=2048, length=128), encoding_work(_USUAL)):
        bf16, reason = faster_precision(work, threads)
        lines[work] = f"auto takes {'bf16' if bf16 else 'fp32'} ({reason})"
    kept = [speed for speed in kept_speeds(best_device(), threads) if speed.work not in lines]
    for speed in kept:
        lines[speed.work] = f"{speed.name} ({speed.teraflops()}; {speed.work.describe()})"
    note = f"kept in {speeds_file()}: without this file they are measured anew"
    return "; ".join([*dict.fromkeys(lines.values()), note])


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: training and inference use the CPU"
    return f"{torch.cuda.get_device_name(0)}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"


def _memory() -> str:
    check_memory()
    return memory_found()


def _disk(work: Path) -> str:
    check_workspace(work, create=False)
    place = nearest_folder(work)
    total = shutil.disk_usage(place).total / 1e9
    return f"{check_disk(place):.1f} of {total:.1f} GB free at {work.resolve()}"


def _providers() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _tracker(uri: str, work: Path) -> str:
    address = tracking_target(TrackingConfig(uri=uri), Workspace(work)).uri
    return tracking_uri(uri, work) if exists(address) else f"{address} (the first run creates it)"

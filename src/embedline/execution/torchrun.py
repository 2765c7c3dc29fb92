"""A training step in several processes on this machine: `runtime.processes`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.config.training import RuntimeConfig
from embedline.errors import EmbedlineError, InputError, Stopped
from embedline.execution.delegation import Delegate, DelegatedStep
from embedline.steps.context import StepConfig

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

WORKER = "embedline.execution.worker"
# The steps that can be shared, and the section that switches each of them off.
SHARED = {"pretrain": "pretrain", "train_unsupervised": "unsupervised", "train_supervised": "supervised"}
# Who does a step, given its name, its config and the workspace: others, or (None) the process that asks.
Where = Callable[[str, str, Path], Delegate | None]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def trains(step: str, config_json: str) -> bool:
    """Whether the step has a training to share: it is a training step, and it is switched on."""
    section = SHARED.get(step)
    return section is not None and bool(
        StepConfig.model_validate_json(config_json).config[section]["enabled"]
    )


def processes_here(step: str, config_json: str, workspace: Path) -> Delegate | None:
    """What does the step in `runtime.processes` processes of this machine; None where one is enough."""
    if not trains(step, config_json):
        return None
    runtime = StepConfig.model_validate_json(config_json).section("runtime", RuntimeConfig)
    return (lambda delegated: launch(delegated, runtime.processes)) if runtime.processes > 1 else None


def launch(delegated: DelegatedStep, processes: int) -> None:
    """Do the step's work with torchrun's agent; when one process dies, it ends the others.

    Raises:
        InputError: fewer GPUs than processes.
        EmbedlineError: what a process could not do, or which one died of what.
        Stopped: SIGTERM, here or there.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and gpus < processes:
        raise InputError(
            f"{processes} processes need a GPU each, here are {gpus}.", where="runtime.processes"
        )
    delegated.write()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{delegated.step}-{delegated.key}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.5,
        virtual_local_rank=gpus is not None,
        logs_specs=DefaultLogsSpecs(log_dir=str(delegated.folder / "torchrun")),
    )
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no other network is needed
    try:
        with _own_signals():
            elastic_launch(config, sys.executable)("-m", WORKER, str(delegated.folder))
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        delegated.raise_failure()
        raise Stopped(f"stopped by {error.sigval.name}; the last checkpoint stands.") from error
    except ChildFailedError as error:
        raise _cause(error, delegated, processes) from error


def _cause(error: ChildFailedError, delegated: DelegatedStep, processes: int) -> EmbedlineError:
    """What began it: a process that a signal ended, else who failed first. The others only lost touch.

    Raises:
        EmbedlineError, Stopped: the first process's own words, where they say it better.
    """
    where = f"step {delegated.step}"
    for rank, failure in error.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            return EmbedlineError(
                f"process {rank} of {processes} died of {signal.Signals(-failure.exitcode).name}.",
                where=where,
                fix="If memory ran out, lower batch_tokens; the next try goes on from the last checkpoint.",
            )
    rank, failure = error.get_first_failure()
    record = delegated.record()
    if rank == 0 or (record is not None and (record.status == "killed" or record.final)):
        delegated.raise_failure()
    return EmbedlineError(f"process {rank} of {processes} failed: {failure.message}", where=where)


@contextmanager
def _own_signals() -> Iterator[None]:
    """The agent installs handlers of its own and leaves them."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Training in several processes on this machine (`runtime.processes`), with torchrun's agent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.config.training import RuntimeConfig
from embedline.dag import STEPS
from embedline.environment import THREADS
from embedline.errors import EmbedlineError, InputError, Stopped
from embedline.execution.delegation import Delegate, DelegatedStep
from embedline.resources import usable_cores
from embedline.steps.context import StepConfig

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

WORKER = "embedline.execution.worker"
# Chooses the delegate of a step by its name, its config and the workspace; None: this process does it.
ChooseDelegate = Callable[[str, str, Path], Delegate | None]
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def trains(step: str, config_json: str) -> bool:
    """Return whether the step is a training step that is switched on."""
    if not STEPS[step].trains:
        return False
    return bool(StepConfig.model_validate_json(config_json).config[STEPS[step].switch]["enabled"])


def processes_here(step: str, config_json: str, workspace: Path) -> Delegate | None:
    """Return a delegate that runs the step in `runtime.processes` processes here; None for one process."""
    if not trains(step, config_json):
        return None
    runtime = StepConfig.model_validate_json(config_json).section("runtime", RuntimeConfig)
    return (lambda delegated: launch(delegated, runtime.processes)) if runtime.processes > 1 else None


def launch(delegated: DelegatedStep, processes: int) -> None:
    """Run the step under torchrun's agent, which ends all processes when one fails.

    Raises:
        InputError: fewer GPUs than processes.
        EmbedlineError: a process failed, or was ended by a signal.
        Stopped: SIGTERM, to this process or to a worker.
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
    share = min(torch.get_num_threads(), usable_cores()) // processes
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
        with _threads_of_each(share), _signal_handlers_restored():
            elastic_launch(config, sys.executable)("-m", WORKER, str(delegated.folder))
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        delegated.raise_failure()
        raise Stopped(f"stopped by {error.sigval.name}; the last checkpoint is kept.") from error
    except ChildFailedError as error:
        raise _cause(error, delegated, processes) from error


def _cause(error: ChildFailedError, delegated: DelegatedStep, processes: int) -> EmbedlineError:
    """Return the first cause: a process ended by a signal, else the first failure.

    The other processes fail because they lose their connection.

    Raises:
        EmbedlineError, Stopped: the first process's own error, where it has the cause.
    """
    where = f"step {delegated.step}"
    for rank, failure in error.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            return EmbedlineError(
                f"process {rank} of {processes} died of {signal.Signals(-failure.exitcode).name}.",
                where=where,
                fix="If memory ran out, lower batch_tokens; the next try resumes from the last checkpoint.",
            )
    rank, failure = error.get_first_failure()
    record = delegated.record()
    if rank == 0 or (record is not None and (record.status == "killed" or record.final)):
        delegated.raise_failure()
    kind = InputError if failure.exitcode == InputError.exit_code else EmbedlineError
    return kind(f"process {rank} of {processes} failed: {failure.message}", where=where)


@contextmanager
def _signal_handlers_restored() -> Iterator[None]:
    """Restore the signal handlers that torchrun's agent replaces."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _threads_of_each(threads: int) -> Iterator[None]:
    """Let each worker's libraries start this many threads: the processes share the cores."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(THREADS, str(max(1, threads))))
    try:
        yield
    finally:
        for name in THREADS:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]

"""One process of several that do a step's work together.

`torchrun --nproc_per_node=N -m embedline.execution.worker WORKSPACE/RUN/steps/STEP/handover`, on one machine
or on several that share the workspace. The first process writes checkpoints, metrics and the result.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS
from embedline.errors import EmbedlineError, Stopped
from embedline.execution.delegation import DelegatedStep, read_delegated_step
from embedline.execution.execute import execute, read_reference
from embedline.steps.context import Context, StepConfig

# For whatever the others may wait: the first process's lock on the key, its saving of a large model. A dead
# process is noticed by its closed connection and by the agent, not by this.
_PATIENCE = timedelta(hours=2)
_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> None:
    """Do this process's part of the work that `folder` hands over."""
    _die_with_parent()
    delegated = read_delegated_step(folder)
    import torch
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    # The trainer would see the group in these and share out the batches once more.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    if dist.get_rank() == 0:
        _lead(delegated)
    else:
        _follow(delegated)
    dist.destroy_process_group()


def _lead(delegated: DelegatedStep) -> None:
    from embedline.training.engine import processes

    record = delegated.record()
    if record is not None and record.final:  # a TrainJob that restarts its pods would only fail again
        delegated.raise_failure()
    began: list[bool] = []

    def starting() -> None:
        began.append(processes.told(True))

    execute(
        delegated.step,
        config_json=delegated.config_json,
        workspace=delegated.workspace,
        run=delegated.run,
        inputs=delegated.inputs,
        outputs={name: delegated.output(name) for name in STEPS[delegated.step].outputs},
        record_in=delegated.folder,
        starting=starting,
    )
    if not began:  # the result was there already
        processes.told(False)


def _follow(delegated: DelegatedStep) -> None:
    from embedline.training.engine import processes

    if not processes.told(False):
        return
    step, place = STEPS[delegated.step], Workspace(delegated.workspace)
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(
            step=step.name,
            key=delegated.key,
            step_config=StepConfig.model_validate_json(delegated.config_json),
            inputs={
                name: read_reference(place, path, step.input_kinds[name])
                for name, path in delegated.inputs.items()
            },
            workspace=place,
            run=delegated.run,
            tracker=Tracker(Path(scratch)),  # only the first process's is kept
            draft=Path(scratch),
        )
        importlib.import_module(f"embedline.steps.{step.module}").run(context)


def _die_with_parent() -> None:
    """Nobody else would end a process whose agent was killed."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _main() -> None:
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(main)(Path(sys.argv[1]))  # leaves the reason for the agent
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(stopped.exit_code)
    except EmbedlineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main()

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
from embedline.execution.delegation import HandOver, read_handover
from embedline.execution.execute import execute, read_reference
from embedline.steps.context import Context, Slice

# For whatever the others may wait: the first process's lock on the key, its saving of a large model. A dead
# process is noticed by its closed connection and by the agent, not by this.
_PATIENCE = timedelta(hours=2)
_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> None:
    """Do this process's part of the work that `folder` hands over."""
    _die_with_parent()
    handover = read_handover(folder)
    import torch
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    # The trainer would see the group in these and share out the batches once more.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    if dist.get_rank() == 0:
        _lead(handover)
    else:
        _follow(handover)
    dist.destroy_process_group()


def _lead(handover: HandOver) -> None:
    from embedline.training.engine import processes

    record = handover.record()
    if record is not None and record.final:  # a TrainJob that restarts its pods would only fail again
        handover.raise_failure()
    began: list[bool] = []

    def starting() -> None:
        began.append(processes.told(True))

    execute(
        handover.step,
        slice_json=handover.slice_json,
        workspace=handover.workspace,
        run=handover.run,
        inputs=handover.inputs,
        outputs={name: handover.output(name) for name in STEPS[handover.step].outputs},
        record_in=handover.folder,
        starting=starting,
    )
    if not began:  # the result was there already
        processes.told(False)


def _follow(handover: HandOver) -> None:
    from embedline.training.engine import processes

    if not processes.told(False):
        return
    step, place = STEPS[handover.step], Workspace(handover.workspace)
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(
            step=step.name,
            key=handover.key,
            slice=Slice.model_validate_json(handover.slice_json),
            inputs={
                name: read_reference(place, path, step.input_kinds[name])
                for name, path in handover.inputs.items()
            },
            workspace=place,
            run=handover.run,
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

"""One of several worker processes that train a step together.

`torchrun --nproc_per_node=N -m embedline.execution.worker WORKSPACE/RUN/steps/STEP/handover`, on one machine
or on several that share the workspace. The first process writes checkpoints, metrics and the result.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from embedline.artifacts.reference import read_reference
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS
from embedline.environment import keep_caches_in
from embedline.execution.delegation import DelegatedStep, read_delegated_step
from embedline.execution.execute import execute, step_module
from embedline.execution.parent_process import end_with_parent
from embedline.execution.plain_failure import log_to_stderr, plain_failure
from embedline.redaction import without_secrets
from embedline.steps.context import Context, StepConfig

# Longer than any wait of the other processes: the first one's lock on the key, its saving of a large model.
# A dead process is noticed by its closed connection and by the agent, not by this timeout.
_TIMEOUT = timedelta(hours=2)


def main(folder: Path) -> None:
    """Run this process's part of the step in `folder`."""
    end_with_parent(signal.SIGKILL)
    delegated = read_delegated_step(folder)
    keep_caches_in(delegated.workspace)
    import torch
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    # transformers' Trainer would read these and divide the batches a second time.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    if dist.get_rank() == 0:
        _run_first(delegated)
    else:
        _run_other(delegated)
    dist.destroy_process_group()


def _run_first(delegated: DelegatedStep) -> None:
    """Run the step as the process that writes its record, and start the others when there is work."""
    from embedline.training.engine import processes

    record = delegated.record()
    if record is not None and record.final:  # restarted pods of a TrainJob would fail again
        delegated.raise_failure()
    began: list[bool] = []

    def starting() -> None:
        began.append(processes.broadcast(True))

    execute(
        delegated.step,
        config_json=delegated.config_json,
        workspace=Workspace(delegated.workspace),
        run=delegated.run,
        inputs=delegated.inputs,
        outputs={name: delegated.output(name) for name in STEPS[delegated.step].outputs},
        record_in=delegated.folder,
        starting=starting,
    )
    if not began:  # the outputs were in the store
        processes.broadcast(False)


def _run_other(delegated: DelegatedStep) -> None:
    """Run the step without a record or outputs, once the first process starts."""
    from embedline.training.engine import processes

    if not processes.broadcast(False):
        return
    step, workspace = STEPS[delegated.step], Workspace(delegated.workspace)
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(
            step=step.name,
            key=delegated.key,
            step_config=StepConfig.model_validate_json(delegated.config_json),
            inputs={
                name: read_reference(workspace, path, step.input_kinds[name])
                for name, path in delegated.inputs.items()
            },
            workspace=workspace,
            run=delegated.run,
            tracker=Tracker(Path(scratch)),  # only the first process keeps its spool
            draft=Path(scratch),
        )
        step_module(step).run(context)


def _main() -> None:
    from torch.distributed.elastic.multiprocessing.errors import ErrorHandler, record

    class RedactingErrorHandler(ErrorHandler):
        """Writes the traceback for the agent without secrets."""

        def record_exception(self, e: BaseException) -> None:
            super().record_exception(e)
            if path := self._get_error_file_path():
                file = Path(path)
                file.write_text(without_secrets(file.read_text(encoding="utf-8")), encoding="utf-8")

    with plain_failure():
        log_to_stderr()
        record(main, RedactingErrorHandler())(Path(sys.argv[1]))  # the agent reads the reason from its file


if __name__ == "__main__":
    _main()

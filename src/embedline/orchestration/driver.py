"""Process that drives the line on this machine.

`python -m embedline.orchestration.driver PRESET OVERRIDES WORKSPACE RUN`, started by `local.run_here`. It
imports kfp, prints a lot, and leads a process group of its own. With the arguments of kfp's DockerRunner as
JSON on standard input the steps are containers, else processes. They hold passwords, and every user of the
machine can read an argument list; and a mount for each folder of data is too long for a variable.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from embedline.artifacts.record import read_records
from embedline.execution.parent_process import end_with_parent
from embedline.orchestration.containers import pipeline_root, stop_containers
from embedline.redaction import protect_process


def main(preset: str, overrides: str, workspace: str, run: str) -> int:
    """Run the DAG with one of kfp's own local runners; return 0 when every step succeeded."""
    protect_process()  # kfp prints what the steps' processes print
    containers = sys.stdin.read()
    _stop_with_parent(Path(workspace) / run if containers else None)
    from kfp import local

    from embedline.pipelines.retrain.pipeline import retrain_pipeline

    _keep_step_arguments()
    _read_any_output()
    _retry_only_what_can_succeed(Path(workspace) / run)
    root = pipeline_root(Path(workspace) / run)
    if containers:
        runner = local.DockerRunner(**json.loads(containers))
    else:
        runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(root), raise_on_error=True)
    try:
        retrain_pipeline()(preset=preset, overrides=overrides, workspace=workspace, run_name=run)
    except RuntimeError as error:  # a step failed; its record has the reason
        typer.echo(error, err=True)
        return 1
    return 0


def _keep_step_arguments() -> None:
    """Limit kfp's replacement of the word python3 to its launcher: it changes every argument, also paths."""
    from kfp.local import subprocess_task_handler as handler

    replace = handler.replace_python_executable

    def in_the_launcher_only(full_command: list[str], new_executable: str) -> list[str]:
        after = 1 + next(
            (i for i, part in enumerate(full_command) if "$program_path" in part), len(full_command)
        )
        return [*replace(full_command[:after], new_executable), *full_command[after:]]

    handler.replace_python_executable = in_the_launcher_only


def _read_any_output() -> None:
    """Let steps write bytes that are not UTF-8: kfp's runner would fail the step for one of them."""
    from kfp.local import subprocess_task_handler as handler

    tolerant = partial(subprocess.Popen, errors="backslashreplace")
    handler.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": tolerant})


def _retry_only_what_can_succeed(run_folder: Path) -> None:
    """End a task's retries when its step failed for good: kfp's runner counts tries and reads no reason."""
    from kfp.local import status
    from kfp.local.orchestrator import task_executor

    try_once = task_executor.execute_single_task

    def execute(*, task_spec: Any, **arguments: Any) -> Any:
        policy = task_spec.retry_policy
        single = type(task_spec)()
        single.CopyFrom(task_spec)
        single.retry_policy.max_retry_count = 0
        for retry in range(policy.max_retry_count + 1):
            if retry:
                wait_s = policy.backoff_duration.seconds * policy.backoff_factor ** (retry - 1)
                time.sleep(min(wait_s, policy.backoff_max_duration.seconds))
            outputs, ended = try_once(task_spec=single, **arguments)
            if ended == status.Status.SUCCESS or _failed_for_good(run_folder):
                break
        return outputs, ended

    task_executor.execute_single_task = execute


def _failed_for_good(run_folder: Path) -> bool:
    """Return whether a step of the run failed with an error that returns at every try."""
    return any(record.status == "failed" and record.final for record in read_records(run_folder))


def _stop_with_parent(run_folder: Path | None) -> None:
    """Stop the steps when the watching process ends or SIGTERM arrives: the whole process group is killed.

    Args:
        run_folder: the run whose containers are stopped as well; None when its steps are processes.
    """

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if run_folder is not None:
            stop_containers(run_folder)
        os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    end_with_parent(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))

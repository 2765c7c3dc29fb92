"""The process that drives the line here.

`python -m embedline.orchestration.line PRESET OVERRIDES WORKSPACE RUN`, started by `local.run_here`. It
imports kfp, is noisy, and leads a process group of its own. With EMBEDLINE_CONTAINERS in the environment, the
arguments of kfp's DockerRunner as JSON, the steps are containers, else processes: those arguments hold
passwords, and everybody on the machine can read an argument list.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from embedline.orchestration.containers import pipeline_root, stop_containers

CONTAINERS = "EMBEDLINE_CONTAINERS"
_PR_SET_PDEATHSIG = 1


def main(preset: str, overrides: str, workspace: str, run: str) -> int:
    """Run the DAG with one of kfp's own local runners; 0 when every step succeeded."""
    containers = os.environ.pop(CONTAINERS, "")
    _die_with_parent(Path(workspace) / run if containers else None)
    from kfp import local

    from embedline.pipelines.retrain.pipeline import retrain_pipeline

    _leave_arguments_alone()
    root = pipeline_root(Path(workspace) / run)
    if containers:
        runner = local.DockerRunner(**json.loads(containers))
    else:
        runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(root), raise_on_error=True)
    try:
        retrain_pipeline()(preset=preset, overrides=overrides, workspace=workspace, run_name=run)
    except RuntimeError as error:  # a step failed; its record says how
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        return 1
    return 0


def _leave_arguments_alone() -> None:
    """kfp's runner means its launcher, but replaces the word python3 in every argument, paths included."""
    from kfp.local import subprocess_task_handler as handler

    replace = handler.replace_python_executable

    def in_the_launcher_only(full_command: list[str], new_executable: str) -> list[str]:
        after = 1 + next(
            (i for i, part in enumerate(full_command) if "$program_path" in part), len(full_command)
        )
        return [*replace(full_command[:after], new_executable), *full_command[after:]]

    handler.replace_python_executable = in_the_launcher_only


def _die_with_parent(run_folder: Path | None) -> None:
    """When the watching process is gone nobody else would stop the steps: the whole group goes.

    Args:
        run_folder: the run whose containers go as well, if it has any.
    """

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if run_folder is not None:
            stop_containers(run_folder)
        os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before we asked to be told
            stop()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))

"""The planning of a run for the preflight component."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedline.artifacts.workspace import Workspace, checked_run_name
from embedline.config.load import read_overrides
from embedline.environment import keep_caches_in
from embedline.execution.config_parameter import to_parameter
from embedline.execution.kfp_component import UI_BYTES
from embedline.execution.plain_failure import plain_failure
from embedline.markdown import shown
from embedline.planning.pipeline_inputs import with_inputs
from embedline.planning.preflight import preflight


def run_preflight(
    preset: str,
    overrides: str,
    workspace: str,
    run_name: str,
    job_id: str,
    summary: Any,
    inputs: Mapping[str, str | int],
) -> tuple[str, ...]:
    """Plan a run for the preflight component.

    Args:
        overrides: text that `read_overrides` parses.
        summary: kfp artefact for the plan as Markdown.
        inputs: the pipeline's other inputs (`planning.pipeline_inputs.KEYS`).

    Returns:
        The run's name and, in the order of the steps, the parameter with each step's config.
    """
    keep_caches_in(Path(workspace))
    with plain_failure():
        run = checked_run_name(run_name or job_id, where="run_name")
        plan = preflight(preset, with_inputs(read_overrides(overrides), inputs), Path(workspace), run)
    sys.stdout.write(f"{plan.table()}\n")
    Path(summary.path).write_text(shown(plan.markdown(), UI_BYTES), encoding="utf-8")
    made = Workspace(Path(workspace))
    parameters = [to_parameter(text, made, run, step) for step, text in plan.step_configs.items()]
    return (plan.run, *parameters)

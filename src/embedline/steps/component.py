"""Between a component's body and the steps: duck-typed artefacts in and out, one plain message on failure."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedline.artifacts.manifest import MANIFEST
from embedline.artifacts.record import RECORD, StepRecord
from embedline.errors import EmbedlineError, InputError, StepError, Stopped
from embedline.steps.base import Workspace
from embedline.steps.execute import execute
from embedline.steps.plan import Plan
from embedline.steps.preflight import preflight
from embedline.steps.torchrun import Where, processes_here


def run_component(
    name: str,
    slice_json: str,
    workspace: str,
    run: str,
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    metrics: Any,
    summary: Any,
    page: Any = None,
    where: Where = processes_here,
) -> StepRecord:
    """Run one step for a component.

    Args:
        inputs, outputs: the step's own names → pipeline artefacts (`path`, `metadata`); a file that names a
            folder of the workspace's store lies at `path`.
        metrics: has `log_metric`.
        summary, page: files for the step's Markdown and (report) its HTML.
        where: decides who does the work when it is not this process.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedline").setLevel(logging.INFO)
    with plain_failure():
        _fail_again(Workspace(Path(workspace)).step_folder(run, name) / RECORD)
        record = execute(
            name,
            slice_json=slice_json,
            workspace=Path(workspace),
            run=run,
            inputs={key: Path(artifact.path) for key, artifact in inputs.items()},
            outputs={key: Path(artifact.path) for key, artifact in outputs.items()},
            elsewhere=where(name, slice_json, Path(workspace)),
        )
    for key, artifact in outputs.items():
        made = record.outputs[key]
        artifact.metadata.update(kind=made.kind, key=record.key, digest=made.digest or "")
        if made.path:
            manifest = json.loads((Path(made.path) / MANIFEST).read_text(encoding="utf-8"))
            artifact.metadata.update(manifest["counts"])
            if page is not None:
                shutil.copyfile(Path(made.path) / "report.html", page.path)
    for key, value in record.metrics.items():
        if math.isfinite(value):
            metrics.log_metric(key, value)
    metrics.log_metric("seconds", record.seconds)
    Path(summary.path).write_text(record.summary or f"{name}: done\n", encoding="utf-8")
    return record


def run_preflight(
    preset: str, overrides: str, workspace: str, run_name: str, job_id: str, summary: Any
) -> Plan:
    """Plan a run for the preflight component; `overrides` as `read_overrides` takes them."""
    with plain_failure():
        plan = preflight(preset, read_overrides(overrides), Path(workspace), run_name or job_id)
    print(plan.table())  # noqa: T201
    Path(summary.path).write_text(f"```\n{plan.table()}\n```\n", encoding="utf-8")
    return plan


def read_overrides(text: str) -> list[str]:
    """One `section.key=value` a line, or a JSON list of them."""
    if text.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except ValueError as error:
            raise InputError(f"is not a JSON list ({error}).", where="overrides") from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def plain_failure() -> Iterator[None]:
    """What the user can act on ends the process with one message and its exit code, without a traceback.

    SIGTERM ends it with 143, which no retry takes for a refusal.
    """
    try:
        yield
    except Stopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(stopped.exit_code)
    except EmbedlineError as error:
        if os.environ.get("EMBEDLINE_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(error.exit_code)


def _fail_again(path: Path) -> None:
    """A retry of a step that refused its input or gave up for good has the same end, without the work."""
    if not path.is_file():
        return
    record = StepRecord.model_validate_json(path.read_text(encoding="utf-8"))
    if record.status == "failed" and record.final:
        error = StepError(record.error)
        error.exit_code = record.exit_code
        raise error

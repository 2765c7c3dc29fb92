"""Between a component's body and the steps: duck-typed artefacts in and out, one plain message on failure."""

from __future__ import annotations

import html
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

from embedline.artifacts.curves import read_curves
from embedline.artifacts.manifest import MANIFEST
from embedline.artifacts.markdown import shown
from embedline.artifacts.record import RECORD, StepRecord
from embedline.artifacts.workspace import Workspace
from embedline.errors import EmbedlineError, StepError, Stopped
from embedline.evaluation.curves import curves_page
from embedline.execution.execute import execute
from embedline.execution.torchrun import Where, processes_here

# The UI cuts Markdown at 400,000 characters, a limit it calls 50 kB: what stays below that is shown whole.
UI_BYTES = 50_000
PAGE_BYTES = 2_000_000


def run_component(
    name: str,
    config_json: str,
    workspace: str,
    run: str,
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    metrics: Any,
    summary: Any,
    page: Any = None,
    curves: Any = None,
    where: Where = processes_here,
) -> StepRecord:
    """Run one step for a component.

    Args:
        inputs, outputs: the step's own names → pipeline artefacts (`path`, `metadata`); a file that names a
            folder of the workspace's store lies at `path`.
        metrics: has `log_metric`.
        summary, page, curves: files for the step's Markdown, the report's HTML, and the training's as HTML.
        where: decides who does the work when it is not this process.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedline").setLevel(logging.INFO)
    with plain_failure():
        _fail_again(Workspace(Path(workspace)).step_folder(run, name) / RECORD)
        record = execute(
            name,
            config_json=config_json,
            workspace=Path(workspace),
            run=run,
            inputs={key: Path(artifact.path) for key, artifact in inputs.items()},
            outputs={key: Path(artifact.path) for key, artifact in outputs.items()},
            delegate=where(name, config_json, Path(workspace)),
        )
    for key, artifact in outputs.items():
        made = record.outputs[key]
        artifact.metadata.update(kind=made.kind, key=record.key, digest=made.digest or "")
        if made.path:
            manifest = json.loads((Path(made.path) / MANIFEST).read_text(encoding="utf-8"))
            artifact.metadata.update(manifest["counts"])
            if page is not None:
                _show_page(Path(made.path) / "report.html", Path(page.path))
    for key, value in record.metrics.items():
        if math.isfinite(value):
            metrics.log_metric(key, value)
    metrics.log_metric("seconds", record.seconds)
    found = read_curves(Workspace(Path(workspace)).step_folder(run, name))
    for key, points in found.items():
        if "loss" in key and key not in record.metrics:
            metrics.log_metric(key, points[-1][1])
    Path(summary.path).write_text(shown(record.summary or f"{name}: done\n", UI_BYTES), encoding="utf-8")
    if curves is not None:
        Path(curves.path).write_text(curves_page(name, found), encoding="utf-8")
    return record


def _show_page(report: Path, page: Path) -> None:
    """The UI loads a page whole into a frame: what is too large for that is only named."""
    if report.stat().st_size <= PAGE_BYTES:
        shutil.copyfile(report, page)
        return
    size = report.stat().st_size // 1_000_000
    page.write_text(f"<p>The report has {size} MB: open {html.escape(str(report))}</p>", encoding="utf-8")


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

"""The adapter between kfp components and steps: artefacts in and out, one plain message on failure."""

from __future__ import annotations

import html
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedline.artifacts.curves import read_curves
from embedline.artifacts.manifest import Manifest, read_manifest
from embedline.artifacts.record import StepRecord, read_record
from embedline.artifacts.workspace import Workspace
from embedline.config.limits import METADATA, argument_bytes
from embedline.environment import keep_caches_in
from embedline.errors import StepError
from embedline.evaluation.curves import curves_page
from embedline.execution.config_parameter import from_parameter
from embedline.execution.execute import execute
from embedline.execution.plain_failure import log_to_stderr, plain_failure
from embedline.execution.torchrun import ChooseDelegate, processes_here
from embedline.markdown import shown

# The UI cuts Markdown at 400,000 characters, and names 50 kB as its limit: what is shorter is shown whole.
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
    where: ChooseDelegate = processes_here,
) -> StepRecord:
    """Run one step for a component.

    Args:
        config_json: the step's config, as `config_parameter.to_parameter` passes it.
        inputs, outputs: the step's own names → kfp artefacts; a reference lies at their `path`.
        metrics: kfp's Metrics artefact.
        summary, page, curves: kfp artefacts for the step's Markdown, the report and the curves as HTML.
        where: chooses the worker processes of a training step.
    """
    keep_caches_in(Path(workspace))
    run_workspace = Workspace(Path(workspace))
    folder = run_workspace.step_folder(run, name)
    with plain_failure():
        log_to_stderr()
        _raise_earlier_failure(folder)
        config_json = from_parameter(config_json, run_workspace)
        record = execute(
            name,
            config_json=config_json,
            workspace=run_workspace,
            run=run,
            inputs={key: Path(artifact.path) for key, artifact in inputs.items()},
            outputs={key: Path(artifact.path) for key, artifact in outputs.items()},
            delegate=where(name, config_json, Path(workspace)),
        )
    for key, artifact in outputs.items():
        made = record.outputs[key]
        artifact.metadata.update(kind=made.kind, key=record.key, digest=made.digest or "")
        if made.path:
            artifact.metadata.update(_described(read_manifest(Path(made.path))))
            if page is not None:
                _show_page(Path(made.path) / "report.html", Path(page.path))
    for key, value in record.metrics.items():
        if math.isfinite(value):
            metrics.log_metric(key, value)
    metrics.log_metric("seconds", record.seconds)
    found = read_curves(folder)
    for key, points in found.items():
        if "loss" in key and key not in record.metrics:
            metrics.log_metric(key, points[-1][1])
    Path(summary.path).write_text(shown(record.summary or f"{name}: done\n", UI_BYTES), encoding="utf-8")
    if curves is not None:
        Path(curves.path).write_text(curves_page(name, found), encoding="utf-8")
    return record


def _described(manifest: Manifest) -> dict[str, Any]:
    """Return an artefact's counts and texts for the UI; of more than its readers' inputs can hold, the first.

    kfp passes an artefact's metadata to every step that reads it, and an evaluation artefact counts each set.
    """
    texts = {name: value for name, value in manifest.metadata.items() if isinstance(value, str)}
    shown: dict[str, Any] = {}
    left = METADATA
    for name, value in {**texts, **manifest.counts}.items():
        left -= argument_bytes(json.dumps({name: value}))
        if left < 0:
            break
        shown[name] = value
    return shown


def _show_page(report: Path, page: Path) -> None:
    """Copy the report for the UI, which loads a page as a whole; one that is too large is only named."""
    if report.stat().st_size <= PAGE_BYTES:
        shutil.copyfile(report, page)
        return
    size = report.stat().st_size // 1_000_000
    page.write_text(f"<p>The report has {size} MB: open {html.escape(str(report))}</p>", encoding="utf-8")


def _raise_earlier_failure(folder: Path) -> None:
    """Raise the error of an earlier attempt when a retry would end in it again."""
    record = read_record(folder)
    if record is not None and record.status == "failed" and record.final:
        error = StepError(record.error)
        error.exit_code = record.exit_code
        raise error

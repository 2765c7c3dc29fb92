"""The exit handler: close a run with its record, links and report, also after a failure."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from embedline.artifacts.record import StepRecord, read_records, write_record
from embedline.artifacts.run_folder import read_plan, read_run, release_space, write_run
from embedline.artifacts.run_record import RunError, RunRecord
from embedline.artifacts.workspace import Workspace, checked_run_name
from embedline.config.load import preset_name
from embedline.config.preset_input import is_text
from embedline.dag import STEPS
from embedline.environment import keep_caches_in
from embedline.errors import ConflictError, EmbedlineError
from embedline.evaluation.summary import main_scores, stage_gains
from embedline.gate.outcome import Outcome, outcome_of
from embedline.redaction import protect_process, without_secrets
from embedline.registry.tracking_target import TrackingTarget, read_tracking, warn_once
from embedline.runs import record as runrecord

DIED = "The process died without an error (a signal, or out of memory)."
_MLFLOW = {
    **dict.fromkeys(("succeeded", "refused", "not judged", "conflict"), "FINISHED"),
    "failed": "FAILED",
    "killed": "KILLED",
}
_STEP = {"done": "FINISHED", "failed": "FAILED", "killed": "KILLED", "running": "KILLED"}
_log = logging.getLogger(__name__)


def finish(
    work: Path,
    run: str,
    *,
    preset: str = "",
    failed: bool = False,
    killed: bool = False,
    exit_code: int = 1,
    message: str = "",
    cause: str = "",
    ended: float | None = None,
    latest: bool = True,
) -> RunRecord:
    """Close a run with its true status; calling it again gives the same.

    Args:
        failed: whether the orchestrator reports a failure, with its `message`.
        killed: whether the run was ended from outside; its command exits with `exit_code`.
        cause: what ended the run and its running steps, where they could not record it themselves.
        ended: when it ended, in seconds since the epoch; now when None.
        latest: whether to point `latest` at the run's folder.
    """
    workspace = Workspace(work)
    folder = workspace.run_folder(run)
    ended = time.time() if ended is None else ended
    release_space(folder)
    default = "Stopped from outside." if killed else DIED
    records = _settle(workspace, run, "killed" if killed else "failed", cause or default, ended)
    record = _record(folder, run, preset, records, failed, exit_code if killed else 0, message, cause, ended)
    _link(folder, records)
    write_run(folder, record)
    if latest:
        runrecord.point_latest(folder)
    target = read_tracking(folder)
    if target is not None:
        _close(target, folder, run, record, records)
    return record


def run_finish(workspace: str, run_name: str, job_id: str, preset: str, state: str, message: str) -> None:
    """Run `finish` for the finish component; an error here is logged and does not fail the run."""
    protect_process()
    keep_caches_in(Path(workspace))
    try:
        finish(
            Path(workspace),
            checked_run_name(run_name or job_id, where="run_name"),
            preset=preset_name(preset) if is_text(preset) else preset,
            failed=state not in {"SUCCEEDED", "CANCELLED"},
            killed=state == "CANCELLED",
            message=message,
        )
    except Exception:
        _log.exception("the run's record could not be completed")


def _settle(
    workspace: Workspace, run: str, status: Literal["failed", "killed"], error: str, ended: float
) -> list[StepRecord]:
    """Close the records of steps that are still marked running: their process died."""
    records = read_records(workspace.run_folder(run))
    for record in records:
        if record.status == "running":
            record.status, record.exit_code, record.error = status, 1, error
            record.seconds = round(max(0.0, ended - record.started_at), 2)
            write_record(workspace.step_folder(run, record.step), record)
    return records


def _record(
    folder: Path,
    run: str,
    preset: str,
    records: list[StepRecord],
    failed: bool,
    killed: int,
    message: str,
    cause: str,
    ended: float,
) -> RunRecord:
    begun, plan = read_run(folder), read_plan(folder)
    verdict, promotion = runrecord.verdict_of(records), runrecord.promotion_of(records)
    broken = next((r for r in records if r.status in {"failed", "killed"}), None)
    status: Literal["succeeded", "refused", "not judged", "conflict", "failed", "killed"]
    if killed:
        status, exit_code = "killed", killed
    elif broken or failed or not verdict:
        status, exit_code = "failed", broken.exit_code if broken and broken.exit_code in {2, 4} else 1
    elif promotion.get("conflict"):
        status, exit_code = "conflict", ConflictError.exit_code
    elif _is_champion(verdict, promotion) or outcome_of(verdict) is Outcome.PASSED:
        status, exit_code = "succeeded", 0
    elif outcome_of(verdict) is Outcome.NOT_JUDGED:
        status, exit_code = "not judged", 0
    else:
        status, exit_code = "refused", 3
    started = begun.started or min((r.started_at for r in records), default=time.time())
    error = None
    if broken:
        error = RunError(step=broken.step, message=cause or broken.error)
    elif status in {"failed", "killed"}:
        text = cause or without_secrets(message) or "The run ended before its gate."
        error = RunError(step=None, message=text)
    return RunRecord(
        run=run,
        preset=preset or begun.preset,
        name=plan.get("name", ""),
        status=status,
        exit_code=exit_code,
        error=error,
        started=started,
        ended=ended,
        seconds=round(max(0.0, ended - started), 2),
        steps=records,
        stages=stage_gains(runrecord.output_folder(records, "evaluate", "scores")),
        verdict=verdict,
        model=promotion,
        tracking=_tracking(folder),
        config=plan.get("config", {}),
    )


def _is_champion(verdict: dict[str, Any], promotion: dict[str, Any]) -> bool:
    """Return whether the candidate was the champion before; the verdict knows less: its weights alone."""
    return bool((promotion or verdict).get("already_champion"))


def _tracking(folder: Path) -> dict[str, str]:
    target = read_tracking(folder)
    return {"uri": target.uri, "experiment": target.experiment} if target else {}


def _link(folder: Path, records: list[StepRecord]) -> None:
    registered = STEPS["promote"].inputs
    for name, source in (("model", registered["candidate"]), ("onnx", registered["onnx"])):
        step, _, output = source.partition(".")
        target = runrecord.output_folder(records, step, output)
        if target is not None:
            runrecord.link(folder / name, target)
    report = runrecord.output_folder(records, "report", "report")
    if report is not None and (report / "report.html").is_file():
        shutil.copyfile(report / "report.html", folder / "report.html")


def _close(
    target: TrackingTarget, folder: Path, run: str, record: RunRecord, records: list[StepRecord]
) -> None:
    try:
        mirror = target.mirror()
        tags = {"status": record.status, "exit_code": str(record.exit_code)}
        if record.error:
            step, message = record.error.step, record.error.message
            tags["error"] = f"{step}: {message}" if step else message
        if record.verdict:
            tags["verdict"] = outcome_of(record.verdict).value
        if record.model:
            tags["model"] = f"{record.model['name']} version {record.model['version']}"
            if conflict := record.model.get("conflict"):
                tags["conflict"] = conflict["text"]
        scores = main_scores(runrecord.output_folder(records, "evaluate", "scores"))
        mirror.parent(run, tags, scores)
        mirror.replay(folder, run)
        for each in records:
            mirror.end_step(run, each.step, _STEP[each.status])
        mirror.close(run, _MLFLOW[record.status])
    except (EmbedlineError, OSError) as error:
        warn_once(target.uri, error)

"""The one adapter of all steps: references in, a step's work or its cached outputs, references out."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedline.artifacts.code_version import code_version
from embedline.artifacts.curves import heard, write_curves
from embedline.artifacts.manifest import Artifact, read_artifact, write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_json, write_record
from embedline.artifacts.store import cache_key
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS, Step
from embedline.errors import EmbedlineError, InputError, StepError, Stopped, without_passwords
from embedline.execution.delegation import Delegate, DelegatedStep
from embedline.steps.context import Context, StepConfig, StepResult

RESULT = "result.json"
MIRROR_EVERY_S = float(os.environ.get("EMBEDLINE_MIRROR_EVERY_S", "20"))  # how live the curves are
# Errors that come again however often a step is tried; a lost process or network is worth another try.
_HOPELESS = (
    InputError,
    StepError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    LookupError,
    AssertionError,
)


def execute(
    name: str,
    *,
    config_json: str,
    workspace: Path,
    run: str,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    delegate: Delegate | None = None,
    record_in: Path | None = None,
    starting: Callable[[], object] = lambda: None,
) -> StepRecord:
    """Run one step of the line, or find what it made before.

    Args:
        inputs, outputs: paths of references (small JSON files that name a folder of the store).
        delegate: does the work in other processes, which leave the result in the store.
        record_in: the folder of the record; the step's own when None.
        starting: called when the work is about to begin, because nothing was found.

    Raises:
        EmbedlineError: whatever the step could not do; the step's record says so too.
        Stopped: SIGTERM; the record says so, and that trying again is of use.
    """
    step, place = STEPS[name], Workspace(workspace)
    folder = place.step_folder(run, name)
    record = StepRecord(step=name, status="running", started_at=time.time())
    with recorded(record_in or folder, record):
        parsed = StepConfig.model_validate_json(config_json)
        opened = {key: read_reference(place, path, step.input_kinds[key]) for key, path in inputs.items()}
        key = record.key = step_key(step, parsed, {k: a.digest if a else None for k, a in opened.items()})
        handed_over = (
            delegate is not None
            and place.store.find(name, key, step.outputs) is None
            and _passed_through_before(place, step, key, opened) is None
        )
        if delegate is not None and handed_over:
            delegated = DelegatedStep(name, key, run, place.root, config_json, inputs)
            with _mirrored(place, run):
                delegate(delegated)
            record.peak_memory_mb = delegated.peak_memory_mb
        tracker = Tracker(folder)
        with place.store.lock(name, key):
            found = place.store.find(name, key, step.outputs) if step.cached else None
            off = _passed_through_before(place, step, key, opened)
            if found is not None:
                result = _stored_result(place, name, key)
                record.cache_hit = not handed_over
            elif off is not None:
                result, found = off, {}
            elif handed_over:
                raise StepError("the processes that worked on it left no result.", where=f"step {name}")
            else:
                starting()
                work = _work(step, key, parsed, opened, place, run, tracker)
                # Whoever handed the work over mirrors: pods of a TrainJob reach no tracking server.
                with _mirrored(place, run) if record_in is None else nullcontext():
                    result, found = work()
                record.cache_hit = result.reused
        record.passed_through = bool(result.passed_through)
        write_curves(folder, result.curves)
        made = {**found, **result.passed_through}
        _tell(tracker, result, made, record)
        for output, path in outputs.items():
            write_reference(place, path, step.outputs[output], made[output])
            artifact = made[output]
            record.outputs[output] = OutputRecord(
                kind=step.outputs[output],
                path=str(artifact.path) if artifact else None,
                digest=artifact.digest if artifact else None,
            )
        record.metrics, record.summary = result.metrics, result.summary
        remember(place, step, record)
    return record


def remember(place: Workspace, step: Step, record: StepRecord) -> None:
    """Note what this key gave, so that a plan can tell what the next run will find."""
    digests = {name: output.digest for name, output in record.outputs.items()}
    note = {"passed_through": record.passed_through, "outputs": digests, "summary": record.summary}
    write_json(place.internal / "index" / step.name / f"{record.key}.json", note)


def recall(place: Workspace, step: Step, key: str) -> dict[str, Any] | None:
    """What `key` gave before; None when it was never made here."""
    path = place.internal / "index" / step.name / f"{key}.json"
    note: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return note


def _passed_through_before(
    place: Workspace, step: Step, key: str, opened: dict[str, Artifact | None]
) -> StepResult | None:
    """What a switched-off step handed on for this key before: the same again, without loading its module."""
    note = recall(place, step, key)
    if note is None or not note["passed_through"]:
        return None
    known = {artifact.digest: artifact for artifact in opened.values() if artifact}
    if any(digest is not None and digest not in known for digest in note["outputs"].values()):
        return None
    handed = {name: known[digest] if digest else None for name, digest in note["outputs"].items()}
    return StepResult(summary=note["summary"], passed_through=handed)


def step_key(step: Step, parsed: StepConfig, inputs: dict[str, str | None]) -> str:
    """The key that `step` keeps its outputs under."""
    content = {"config": parsed.config, "pins": parsed.pins}
    return cache_key(step.name, code_version(step.module), content, inputs)


def write_reference(place: Workspace, path: Path, kind: str, artifact: Artifact | None) -> None:
    """A reference is relative to the workspace, so that a workspace can be moved or mounted elsewhere."""
    value: dict[str, Any] = {"kind": kind, "path": None, "digest": None}
    if artifact is not None:
        value |= {"path": str(artifact.path.relative_to(place.root)), "digest": artifact.digest}
    write_json(path, value)


def read_reference(place: Workspace, path: Path, kind: str) -> Artifact | None:
    """Open what a reference names; None when a step upstream handed nothing on."""
    if not path.is_file():
        raise InputError("the step before this one wrote no output.", where=str(path))
    value = json.loads(path.read_text(encoding="utf-8"))
    return read_artifact(place.root / value["path"], kind) if value["path"] else None


def _work(
    step: Step,
    key: str,
    parsed: StepConfig,
    opened: dict[str, Artifact | None],
    place: Workspace,
    run: str,
    tracker: Tracker,
) -> Callable[[], tuple[StepResult, dict[str, Artifact]]]:
    def work() -> tuple[StepResult, dict[str, Artifact]]:
        module = importlib.import_module(f"embedline.steps.{step.module}")
        # A step that is not cached acts again each time; its outputs are kept by run, not by key alone.
        kept_as = key if step.cached else f"{key}-{run}"
        with place.store.writing(step.name, kept_as, replace=not step.cached) as draft:
            context = Context(step.name, key, parsed, opened, place, run, tracker, draft)
            result: StepResult = module.run(context)
            result = replace(result, curves=heard(place.step_folder(run, step.name)))
            for output, kind in step.outputs.items():
                if output not in result.passed_through:
                    _seal(draft / output, kind, step, key, opened, result, output)
            kept = {"metrics": result.metrics, "summary": result.summary, "curves": result.curves}
            write_json(draft / RESULT, kept)
            if result.passed_through:  # nothing of its own to keep: decided anew each time, at no cost
                shutil.rmtree(draft)
                return result, {}
        found = place.store.find(step.name, kept_as, step.outputs)
        if found is None:
            raise StepError("its outputs cannot be read back.", where=f"step {step.name}")
        shutil.rmtree(place.checkpoints(step.name, key), ignore_errors=True)
        return result, found

    return work


def _seal(
    folder: Path,
    kind: str,
    step: Step,
    key: str,
    opened: dict[str, Artifact | None],
    result: StepResult,
    output: str,
) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise StepError(f"wrote no output {output!r}.", where=f"step {step.name}")
    write_manifest(
        folder,
        kind=kind,
        step=step.name,
        key=key,
        inputs={name: artifact.digest for name, artifact in opened.items() if artifact},
        counts=result.counts.get(output),
        metadata=result.metadata.get(output),
    )


def _stored_result(place: Workspace, name: str, key: str) -> StepResult:
    kept = json.loads((place.store.root / name / key / RESULT).read_text(encoding="utf-8"))
    return StepResult(metrics=kept["metrics"], summary=kept["summary"], curves=kept.get("curves", {}))


def _tell(tracker: Tracker, result: StepResult, made: dict[str, Artifact | None], record: StepRecord) -> None:
    tracker.metrics(result.metrics)
    tracker.tags({"key": record.key, "cache_hit": record.cache_hit})
    for output, artifact in made.items():
        if artifact is not None:
            tracker.tags({f"artifact.{output}": artifact.path, f"digest.{output}": artifact.digest})
            tracker.params({f"{output}.{name}": count for name, count in artifact.manifest.counts.items()})


@contextmanager
def recorded(folder: Path, record: StepRecord) -> Iterator[None]:
    """The record on disk is true at every moment: running, then done or failed with the reason."""
    started = time.monotonic()
    record.pid = os.getpid()
    write_record(folder, record)
    try:
        with _terminable():
            yield
        record.status = "done"
    except BaseException as error:
        record.status = "failed" if isinstance(error, Exception) else "killed"
        record.error = _words(error)
        record.exit_code = error.exit_code if isinstance(error, EmbedlineError | Stopped) else 1
        record.final = isinstance(error, _HOPELESS)
        raise
    finally:
        record.seconds = round(time.monotonic() - started, 2)
        peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        record.peak_memory_mb = max(record.peak_memory_mb, peak_mb)
        write_record(folder, record)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM leaves a record, too. A training has its own way to stop, with a checkpoint."""

    def stop(*_: Any) -> None:
        raise Stopped("stopped by SIGTERM.")

    if threading.current_thread() is not threading.main_thread():  # the caller's own handling stands
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _words(error: BaseException) -> str:
    """One message; an error that nobody foresaw is named by its kind, too."""
    if isinstance(error, EmbedlineError | Stopped):
        return str(error)
    return without_passwords(f"{type(error).__name__}: {error}".removesuffix(": "))


@contextmanager
def _mirrored(place: Workspace, run: str) -> Iterator[None]:
    """Replay the run's spools to the tracking server while the step works, so that curves are live.

    What is not replayed here (a cached step, a server that is down) the finish step replays.
    """
    stop = threading.Event()

    def mirror() -> None:
        while not stop.wait(MIRROR_EVERY_S):
            from embedline.registry.tracking_target import mirror_run

            mirror_run(place, run)

    thread = threading.Thread(target=mirror, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)

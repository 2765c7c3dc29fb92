"""The execution of any step: read references, do the work or find cached outputs, write references."""

from __future__ import annotations

import importlib
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from embedline.artifacts.checked_json import read_checked_json, write_checked_json
from embedline.artifacts.code_version import code_version
from embedline.artifacts.curves import read_metric_series, write_curves
from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord
from embedline.artifacts.reference import read_reference, write_reference
from embedline.artifacts.store import cache_key
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace, output_reference
from embedline.dag import STEPS, Step
from embedline.errors import StepError, first_line
from embedline.execution.delegation import Delegate, DelegatedStep
from embedline.execution.key_index import note_key, read_key_note
from embedline.execution.mirroring import mirrored
from embedline.execution.recorded import recorded
from embedline.redaction import without_secrets
from embedline.steps.context import Context, StepConfig, StepResult

_log = logging.getLogger(__name__)
_RESULT = "result.json"
Made = tuple[StepResult, dict[str, Artifact | None]]  # a step's result, and its outputs by name


def execute(
    name: str,
    *,
    config_json: str,
    workspace: Workspace,
    run: str,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    delegate: Delegate | None = None,
    record_in: Path | None = None,
    starting: Callable[[], object] = lambda: None,
) -> StepRecord:
    """Run one step of the line, or find what it made before.

    Args:
        config_json: the step's `StepConfig`, as preflight made it.
        inputs, outputs: paths of references (`artifacts.reference`).
        delegate: does the work in other processes, which leave the outputs in the store.
        record_in: folder of the record; the step's own folder of the run when None.
        starting: called before the work begins, when no earlier outputs were found.

    Raises:
        EmbedlineError: what the step could not do; the step's record holds it too.
        Stopped: SIGTERM; a retry goes on where the step stopped.
    """
    step = STEPS[name]
    folder = workspace.step_folder(run, name)
    record = StepRecord(step=name, status="running", started_at=time.time())
    with recorded(record_in or folder, record, workspace.run_folder(run)):
        config = StepConfig.model_validate_json(config_json).located(workspace)
        opened = {
            input_name: read_reference(workspace, path, step.input_kinds[input_name])
            for input_name, path in inputs.items()
        }
        digests = {name: artifact.digest if artifact else None for name, artifact in opened.items()}
        key = record.key = step_key(step, config, digests)
        work = _Work(step, key, config, opened, workspace, run, Tracker(folder))
        delegated = None
        if delegate is not None and not work.was_done_before():
            delegated = DelegatedStep(name, key, run, workspace.root, config_json, inputs)
            with mirrored(workspace, run):
                delegate(delegated)
            record.peak_memory_mb = delegated.peak_memory_mb
        with workspace.store.lock(name, key):
            result, made = work.find_stored() or work.find_passed_through() or (None, {})
            if result is not None:
                record.cache_hit = not result.passed_through and delegated is None
            elif delegated is not None:
                raise StepError("the processes that worked on it left no result.", where=f"step {name}")
            else:
                starting()
                # The process that delegates a step mirrors it: pods of a TrainJob reach no tracking server.
                with mirrored(workspace, run) if record_in is None else nullcontext():
                    result, made = work.do()
                record.cache_hit = result.reused
        record.passed_through = bool(result.passed_through)
        write_curves(folder, result.curves)
        _track(work.tracker, result, made, record)
        for output, path in outputs.items():
            write_reference(workspace, path, step.outputs[output], made[output])
            record.outputs[output] = _output_record(step.outputs[output], made[output])
        record.metrics, record.summary = result.metrics, result.summary
        note_key(workspace, step, record)
    return record


def step_key(step: Step, config: StepConfig, inputs: dict[str, str | None]) -> str:
    """Return the key that `step` keeps its outputs under: code, settings, pins and inputs' digests."""
    content = {"config": config.config, "pins": config.pins}
    return cache_key(step.name, code_version(step.module), content, inputs)


def step_module(step: Step) -> ModuleType:
    """Import the module with the step's `run`."""
    return importlib.import_module(f"embedline.steps.{step.module}")


@dataclass(frozen=True)
class _Work:
    """One step's work under its key."""

    step: Step
    key: str
    config: StepConfig
    inputs: dict[str, Artifact | None]
    workspace: Workspace
    run: str
    tracker: Tracker

    def was_done_before(self) -> bool:
        """Return whether the store has outputs under the key, or the step passed its input through."""
        return self.find_stored() is not None or self.find_passed_through() is not None

    def find_stored(self) -> Made | None:
        """Return the outputs that a cached step left under its key; None when one of them is damaged."""
        found = None
        if self.step.cached:
            found = self.workspace.store.find(self.step.name, self.key, self.step.outputs)
        if found is None:
            return None
        path = self.workspace.store.root / self.step.name / self.key / _RESULT
        try:
            kept = read_checked_json(path)
        except (OSError, ValueError) as error:
            _log.warning("%s: damaged, will be made again. %s: %s", self.step.name, path, first_line(error))
            return None
        result = StepResult(metrics=kept["metrics"], summary=kept["summary"], curves=kept.get("curves", {}))
        return result, dict(found)

    def find_passed_through(self) -> Made | None:
        """Return what a switched-off step passed through for this key before, without loading its module."""
        note = read_key_note(self.workspace, self.step, self.key)
        if note is None or not note.passed_through:
            return None
        known = {artifact.digest: artifact for artifact in self.inputs.values() if artifact}
        if any(digest is not None and digest not in known for digest in note.outputs.values()):
            return None
        passed = {name: known[digest] if digest else None for name, digest in note.outputs.items()}
        return StepResult(summary=note.summary, passed_through=passed), passed

    def do(self) -> Made:
        """Run the step's module and keep its outputs in the store, all or none of them."""
        name, store = self.step.name, self.workspace.store
        # A step that is not cached acts again each time; its outputs are kept by run, not by key alone.
        kept_as = self.key if self.step.cached else f"{self.key}-{self.run}"
        with store.writing(name, kept_as, replace=not self.step.cached) as draft:
            result = self._run_module(draft)
            if result.passed_through:  # the step is off: the next run decides this again, at no cost
                shutil.rmtree(draft)
        if result.passed_through:
            return result, dict(result.passed_through)
        found = store.find(name, kept_as, self.step.outputs)
        if found is None:
            raise StepError("its outputs cannot be read back.", where=f"step {name}")
        shutil.rmtree(self.workspace.checkpoints(name, self.key), ignore_errors=True)
        return result, dict(found)

    def _run_module(self, draft: Path) -> StepResult:
        context = Context(
            self.step.name, self.key, self.config, self.inputs, self.workspace, self.run, self.tracker, draft
        )
        result: StepResult = step_module(self.step).run(context)
        summary = without_secrets(result.summary)
        result = replace(result, summary=summary, curves=read_metric_series(self.tracker.folder))
        for output in self.step.outputs:
            if output not in result.passed_through:
                self._seal(draft, output, result)
        kept = {"metrics": result.metrics, "summary": result.summary, "curves": result.curves}
        write_checked_json(draft / _RESULT, kept)
        return result

    def _seal(self, draft: Path, output: str, result: StepResult) -> None:
        """Complete an output with its manifest."""
        folder = draft / output
        if not folder.is_dir() or not any(folder.iterdir()):
            raise StepError(f"wrote no output {output!r}.", where=f"step {self.step.name}")
        write_manifest(
            folder,
            kind=self.step.outputs[output],
            step=self.step.name,
            key=self.key,
            inputs={name: artifact.digest for name, artifact in self.inputs.items() if artifact},
            counts=result.counts.get(output),
            metadata=result.metadata.get(output),
        )


def _output_record(kind: str, artifact: Artifact | None) -> OutputRecord:
    if artifact is None:
        return OutputRecord(kind=kind, path=None, digest=None)
    return OutputRecord(kind=kind, path=str(artifact.path), digest=artifact.digest)


def _track(
    tracker: Tracker, result: StepResult, made: dict[str, Artifact | None], record: StepRecord
) -> None:
    tracker.metrics(result.metrics)
    tracker.tags({"key": record.key, "cache_hit": record.cache_hit})
    for output, artifact in made.items():
        if artifact is not None:
            place = output_reference(artifact.path)
            tracker.tags({f"artifact.{output}": place, f"digest.{output}": artifact.digest})
            tracker.params({f"{output}.{name}": count for name, count in artifact.manifest.counts.items()})

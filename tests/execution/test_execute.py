"""The step protocol: keys, the store, references, records and spools, whatever a step does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.tracker import read_spool
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS, Step
from embedline.errors import EmbedlineError, InputError, StepError, Stopped
from embedline.execution import execute as protocol
from embedline.execution.delegation import DelegatedStep, read_delegated_step
from embedline.execution.execute import execute, step_key
from embedline.execution.key_index import read_key_note
from embedline.planning.plan import _outcome
from embedline.steps.context import Context, StepConfig, StepResult

Work = Callable[[Context], StepResult]
STEP = Step(
    "brew", ("seed",), inputs={"dataset": "gather.dataset"}, outputs={"model": "model"}, pins=("base",)
)
MAKER = Step("gather", ("seed",), outputs={"dataset": "dataset"})


class Bench:
    """A catalogue of two steps whose work the tests choose."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.calls = root, 0
        self.work: Work = self.write
        for step in (STEP, MAKER):
            module = types.ModuleType(f"embedline.steps.{step.module}")
            module.run = self._run if step is STEP else self._gather  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(STEPS, step.name, step)
        self.place = Workspace(root)
        self.dataset = root / "refs" / "dataset.json"
        self.model = root / "refs" / "model.json"
        self.gather("first")

    def gather(self, run: str) -> None:
        gathered = StepConfig(config={"seed": 0}).model_dump_json()
        outputs = {"dataset": self.dataset}
        execute("gather", config_json=gathered, workspace=self.place, run=run, inputs={}, outputs=outputs)

    def _run(self, context: Context) -> StepResult:
        self.calls += 1
        return self.work(context)

    @staticmethod
    def _gather(context: Context) -> StepResult:
        (context.output("dataset") / "records.txt").write_text("three rows")
        return StepResult(counts={"dataset": {"rows": 3}})

    @staticmethod
    def write(context: Context) -> StepResult:
        (context.output("model") / "weights.txt").write_text(f"seed {context.step_config.config['seed']}")
        return StepResult(metrics={"loss": 0.25}, summary="brewed", counts={"model": {"layers": 2}})

    def run(
        self,
        run: str = "first",
        *,
        seed: int = 0,
        base: str = "abc",
        root: str = "/here",
        delegate: Any = None,
    ) -> StepRecord:
        chosen = StepConfig(
            config={"seed": seed}, pins={"base": base}, locations={"root": root}
        ).model_dump_json()
        return execute(
            "brew",
            config_json=chosen,
            workspace=self.place,
            run=run,
            inputs={"dataset": self.dataset},
            outputs={"model": self.model},
            delegate=delegate,
        )

    def record(self, run: str = "first") -> StepRecord:
        return next(r for r in read_records(self.root / run) if r.step == "brew")

    def stored(self) -> list[Path]:
        return sorted((self.root / ".embedline" / "store" / "brew").glob("*/"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path.resolve(), monkeypatch)


def test_a_finished_step_is_found_again_by_another_run(bench: Bench) -> None:
    first, second = bench.run("first"), bench.run("second")
    assert bench.calls == 1
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert (second.metrics, second.summary) == ({"loss": 0.25}, "brewed")
    assert first.outputs == second.outputs
    reference = json.loads(bench.model.read_text())
    assert not Path(reference["path"]).is_absolute(), "a workspace may be mounted elsewhere"


@pytest.mark.parametrize("change", [{"seed": 1}, {"base": "other"}])
def test_another_config_or_pin_is_another_key(bench: Bench, change: dict[str, Any]) -> None:
    bench.run()
    assert bench.run(**change).cache_hit is False
    assert bench.calls == 2


def test_where_things_lie_is_no_part_of_the_key(bench: Bench) -> None:
    bench.run(root="/here")
    assert bench.run(root="/there").cache_hit


def test_other_code_is_another_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()
    monkeypatch.setattr(protocol, "code_version", lambda module: "edited")
    assert bench.run().cache_hit is False


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "no manifest", "manifest", "result", "note"])
def test_a_damaged_artefact_is_made_again(bench: Bench, damage: str) -> None:
    key = bench.run().key
    folder = bench.stored()[0] / "model"
    weights = folder / "weights.txt"
    if damage == "cut":
        weights.write_text("s")
    elif damage == "gone":
        weights.unlink()
    elif damage == "changed":
        overwrite(weights, b"seed 7")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "manifest":
        overwrite(folder / "manifest.json", (folder / "manifest.json").read_bytes().replace(b": 2", b": 3"))
    elif damage == "result":
        overwrite(folder.parent / "result.json", b"\x00" * 40)
    else:  # only read for steps that are off
        overwrite(bench.root / ".embedline" / "index" / "brew" / f"{key}.json", b"\x00" * 40)
    record = bench.run("second")
    assert record.cache_hit is (damage == "note")
    assert (record.metrics, record.summary) == ({"loss": 0.25}, "brewed")
    assert weights.read_text() == "seed 0"
    assert bench.run("third").cache_hit


def overwrite(path: Path, content: bytes) -> None:
    """Change a file in place; its size may stay, and its time does."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_plan_expects_a_damaged_artefact_to_be_made_again_and_removes_nothing(bench: Bench) -> None:
    record = bench.run()
    folder = bench.stored()[0] / "model"
    assert _outcome(bench.place, STEP, record.key) is not None
    overwrite(folder / "weights.txt", b"seed 7")
    assert _outcome(bench.place, STEP, record.key) is None
    assert folder.is_dir()


def test_a_damaged_input_is_named_with_its_digests_and_made_again_by_the_next_run(bench: Bench) -> None:
    [rows] = (bench.place.store.root / "gather").glob("*/dataset/records.txt")
    overwrite(rows, b"three cows")
    with pytest.raises(InputError, match=r"SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}") as raised:
        bench.run()
    assert raised.value.where == str(rows)
    assert "the step gather makes it anew" in raised.value.fix
    assert bench.calls == 0
    bench.gather("second")
    assert rows.read_text() == "three rows"
    assert bench.run("second").status == "done"


def test_a_reference_names_the_artefact_that_was_handed_over_and_no_other(bench: Bench) -> None:
    reference = json.loads(bench.dataset.read_text())
    bench.dataset.write_text(json.dumps({**reference, "digest": "0" * 64}))
    with pytest.raises(InputError, match=f"has the digest {reference['digest']}, expected 0000"):
        bench.run()
    bench.dataset.write_bytes(bytes(40))
    with pytest.raises(InputError, match="the reference is damaged"):
        bench.run()


def test_a_failure_leaves_nothing_in_the_store_and_says_why(bench: Bench) -> None:
    def fail(context: Context) -> StepResult:
        (context.output("model") / "half.txt").write_text("half")
        raise StepError("the loss is not a number.", where="step brew", fix="Lower the rate.")

    bench.work = fail
    with pytest.raises(StepError):
        bench.run()
    record = bench.record()
    assert (record.status, record.exit_code, record.final) == ("failed", 1, True)
    assert record.error == "step brew: the loss is not a number. Lower the rate."
    assert bench.stored() == []
    bench.work = bench.write
    assert bench.run().status == "done"


def test_an_unexpected_error_is_worth_another_try_and_bad_input_is_not(bench: Bench) -> None:
    for error, code, final in (
        (ConnectionError("gone"), 1, False),
        (InputError("no rows."), 2, True),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 1, True),
    ):

        def fail(context: Context, error: Exception = error) -> StepResult:
            raise error

        bench.work = fail
        with pytest.raises(type(error)):
            bench.run()
        assert (bench.record().exit_code, bench.record().final) == (code, final)


def test_nobody_sees_an_output_while_it_is_written(bench: Bench) -> None:
    seen: list[bool] = []

    def look(context: Context) -> StepResult:
        result = bench.write(context)
        seen.append(bench.place.store.find("brew", context.key, STEP.outputs) is None)
        seen.append(bench.record().status == "running")
        return result

    bench.work = look
    bench.run()
    assert seen == [True, True]


def test_a_draft_that_a_killed_process_left_is_swept_away(bench: Bench) -> None:
    key = bench.run().key
    shutil.rmtree(bench.stored()[0])
    draft = bench.root / ".embedline" / "store" / "brew" / f".{key}.dead.draft"
    draft.mkdir()
    bench.run("second")
    assert not draft.exists()


def test_a_step_without_output_fails(bench: Bench) -> None:
    bench.work = lambda context: StepResult()
    with pytest.raises(StepError, match="wrote no output 'model'"):
        bench.run()
    assert bench.stored() == []


def test_a_switched_off_step_hands_on_by_reference_and_next_time_without_its_module(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = replace(STEP, outputs={"model": "dataset"})
    monkeypatch.setitem(STEPS, "brew", step)
    bench.work = lambda context: StepResult(
        passed_through={"model": context.inputs["dataset"]}, summary="off"
    )
    first, second = bench.run("first"), bench.run("second")
    assert bench.calls == 1
    assert first.outputs == second.outputs
    assert (second.passed_through, second.cache_hit, second.summary) == (True, False, "off")
    assert json.loads(bench.model.read_text())["digest"] == json.loads(bench.dataset.read_text())["digest"]
    assert bench.stored() == []
    note = read_key_note(bench.place, step, first.key)
    assert note is not None
    assert note.passed_through


def test_nothing_can_be_handed_on_too(bench: Bench) -> None:
    bench.work = lambda context: StepResult(passed_through={"model": None})
    for run in ("first", "second"):
        assert bench.run(run).outputs["model"].path is None
    assert json.loads(bench.model.read_text())["path"] is None
    assert bench.calls == 1


def test_a_missing_or_foreign_input_is_named_and_recorded(bench: Bench) -> None:
    bench.dataset.unlink()
    with pytest.raises(InputError, match="wrote no output"):
        bench.run()
    assert bench.record().status == "failed"


def test_the_manifest_says_what_made_it(bench: Bench) -> None:
    key = bench.run().key
    manifest = json.loads((bench.stored()[0] / "model" / "manifest.json").read_text())
    assert (manifest["step"], manifest["key"], manifest["counts"]) == ("brew", key, {"layers": 2})
    assert manifest["inputs"] == {"dataset": json.loads(bench.dataset.read_text())["digest"]}


def test_checkpoints_go_once_the_output_stands(bench: Bench) -> None:
    def work(context: Context) -> StepResult:
        context.checkpoints.mkdir(parents=True)
        if bench.calls == 1:
            raise ConnectionError("gone")
        return bench.write(context)

    def resumed(context: Context) -> StepResult:
        assert context.checkpoints.is_dir(), "a retry finds what the first attempt left"
        return bench.write(context)

    bench.work = work
    with pytest.raises(ConnectionError):
        bench.run()
    bench.work = resumed
    record = bench.run("second")
    assert not bench.place.checkpoints("brew", record.key).exists()


def test_the_spool_says_everything_once_however_often_a_step_is_tried(bench: Bench) -> None:
    def work(context: Context) -> StepResult:
        context.tracker.metrics({"train/loss": 1.0}, step=10)
        if bench.calls == 1:
            raise ConnectionError("gone")
        return bench.write(context)

    bench.work = work
    with pytest.raises(ConnectionError):
        bench.run()
    bench.run()
    lines = read_spool(bench.root / "first" / "steps" / "brew" / "spool.jsonl")
    said = [(line["type"], line["key"], line.get("step", 0)) for line in lines]
    assert len(said) == len(set(said))
    assert {("metric", "train/loss", 10), ("metric", "loss", 0), ("param", "model.layers", 0)} <= set(said)
    assert any(line["key"] == "digest.model" for line in lines)


def test_a_step_that_acts_each_time_keeps_its_outputs_by_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STEPS, "brew", replace(STEP, kind="acts"))
    first, second = bench.run("first"), bench.run("second")
    assert bench.calls == 2
    assert first.key == second.key
    assert first.outputs["model"].path != second.outputs["model"].path
    bench.run("first")
    assert len(bench.stored()) == 2


def test_sigterm_leaves_a_record_that_says_so_and_a_retry_works(bench: Bench) -> None:
    def work(context: Context) -> StepResult:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError

    bench.work = work
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        bench.run()
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    record = bench.record()
    assert (record.status, record.exit_code, record.final) == ("killed", 143, False)
    assert "SIGTERM" in record.error
    assert bench.stored() == []
    bench.work = bench.write
    assert bench.run().status == "done"


class Delegate:
    """Does the work of `brew` as others would: by the same protocol, from what was handed over."""

    def __init__(self, bench: Bench, *, works: bool = True) -> None:
        self.bench, self.works, self.calls = bench, works, 0

    def __call__(self, delegated: DelegatedStep) -> None:
        self.calls += 1
        delegated.write()
        there = read_delegated_step(delegated.folder)
        assert there.key == delegated.key
        assert there.workspace == self.bench.root.resolve()
        if self.works:
            execute(
                there.step,
                config_json=there.config_json,
                workspace=Workspace(there.workspace),
                run=there.run,
                inputs=there.inputs,
                outputs={"model": there.output("model")},
                record_in=there.folder,
            )


def test_work_done_elsewhere_is_taken_from_the_store(bench: Bench) -> None:
    delegate = Delegate(bench)
    record = bench.run(delegate=delegate)
    assert (record.status, record.cache_hit, record.metrics) == ("done", False, {"loss": 0.25})
    assert json.loads(bench.model.read_text())["digest"] == record.outputs["model"].digest
    assert bench.record() == record
    assert bench.run("second", delegate=delegate).cache_hit
    assert (bench.calls, delegate.calls) == (1, 1)


def test_others_that_leave_nothing_are_a_failure(bench: Bench) -> None:
    with pytest.raises(StepError, match="left no result"):
        bench.run(delegate=Delegate(bench, works=False))
    assert bench.calls == 0


@pytest.mark.parametrize(
    ("error", "kind", "final"),
    [
        (InputError("no rows."), StepError, True),
        (ConnectionError("gone"), EmbedlineError, False),
        (Stopped("stopped by SIGTERM."), Stopped, False),
    ],
)
def test_the_failure_of_others_is_the_steps_own(
    bench: Bench, error: BaseException, kind: type[BaseException], final: bool
) -> None:
    def fail(context: Context) -> StepResult:
        raise error

    class Failing(Delegate):
        def __call__(self, delegated: DelegatedStep) -> None:
            with pytest.raises(type(error)):
                super().__call__(delegated)
            delegated.raise_failure()

    bench.work = fail
    with pytest.raises(kind) as raised:
        bench.run(delegate=Failing(bench))
    assert type(raised.value) is kind
    assert str(error) in str(raised.value)
    assert bench.record().final is final
    assert bench.record().exit_code == getattr(error, "exit_code", 1)


def test_where_a_training_works_is_no_part_of_the_key(bench: Bench) -> None:
    chosen = StepConfig(config={"seed": 0})
    there = StepConfig(config={"seed": 0}, train_job={"nodes": 8})
    assert step_key(STEP, chosen, {}) == step_key(STEP, there, {})

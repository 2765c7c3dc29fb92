"""Promote step: every candidate is registered, the alias moves only when gate and policy allow it."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_record
from embedline.artifacts.tracker import Tracker
from embedline.artifacts.workspace import Workspace
from embedline.config.registry import PromoteConfig, TrackingConfig
from embedline.evaluation.report import ReportData, render_report
from embedline.orchestration import outcome
from embedline.registry.promotion import history
from embedline.registry.promotion import promote as promote_by_hand
from embedline.registry.server import default_uri, prepare
from embedline.registry.versions import aliases, get_champion
from embedline.runs.finish import finish
from embedline.steps import promote
from embedline.steps.context import Context, StepConfig

CARD = json.dumps({"index_version": "abc123"})
_ROW = {"model": "candidate", "set": "Docs", "kind": "retrieval", "metric": "ndcg_at_10", "main": True}
_ROWS = [
    {**_ROW, "value": 0.71, "dim": 64, "runtime": "torch", "head": "dense"},
    {**_ROW, "value": 0.60, "dim": 16, "runtime": "torch", "head": "dense"},
    {**_ROW, "value": 0.70, "dim": 64, "runtime": "onnx-int8", "head": "dense"},
    {**_ROW, "value": 0.50, "dim": 64, "runtime": "torch", "head": "lexical"},
    {**_ROW, "model": "base", "value": 0.3, "dim": 64, "runtime": "torch", "head": "dense"},
]
SCORES = "".join(json.dumps(row) + "\n" for row in _ROWS)
FINGERPRINT = {"train_key": "t1", "data": "d1", "code": "c1", "image": "i1", "config": "f1", "base": "b1"}


def artifact(folder: Path, kind: str, files: dict[str, str]) -> Artifact:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return write_manifest(folder, kind=kind, step="test", key="key")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = default_uri(tmp_path_factory.mktemp("tracking"))
    prepare(address)
    return address


@pytest.fixture
def promoted(uri: str, tmp_path: Path):
    """Run the step for a model with some content; each call is a new run."""
    runs = iter(range(100))

    def run(
        name: str,
        content: str,
        *,
        passed: bool | None,
        met: int | None,
        policy: str = "auto",
        alias: str = "champion",
        **more: Any,
    ) -> dict[str, Any]:
        """`passed`: None when the gate did not judge the model."""
        run_name = f"{name}-{next(runs)}"
        folder = tmp_path / run_name
        reasons = [{"rule": "rules.0", "passed": passed is not False, "text": "Because."}]
        reasons += more.pop("reasons", [])
        written: dict[str, Any] = {"passed": bool(passed), "mode": "enforce", "reasons": reasons, **more}
        if passed is None:
            written |= {"outcome": "not judged", "would_pass": False}
        verdict = json.dumps(written)
        inputs: dict[str, Artifact | None] = {
            "candidate": artifact(
                folder / "model", "model", {"model.safetensors": content, "embedline.json": CARD}
            ),
            "onnx": artifact(folder / "onnx", "onnx", {"model.onnx": "graph"}),
            "verdict": artifact(folder / "verdict", "verdict", {"verdict.json": verdict}),
            "scores": artifact(folder / "scores", "scores", {"scores.jsonl": SCORES}),
        }
        run_folder = tmp_path / "work" / run_name
        run_folder.mkdir(parents=True)
        (run_folder / "fingerprint.json").write_text(json.dumps(FINGERPRINT), encoding="utf-8")
        config = {
            "name": name,
            "promote": PromoteConfig(policy=policy, alias=alias).model_dump(),
            "tracking": TrackingConfig(uri=uri).model_dump(),
        }
        pins = {"champion": {"version": met, "digest": ""} if met else None}
        draft = folder / "draft"
        draft.mkdir()
        context = Context(
            "promote",
            "key",
            StepConfig(config=config, pins=pins),
            inputs,
            Workspace(tmp_path / "work"),
            run_name,
            Tracker(folder / "spool"),
            draft,
        )
        promote.run(context)
        assert [p.name for p in draft.iterdir()] == ["promotion"]
        made = write_manifest(draft / "promotion", kind="promotion", step="promote", key="key")
        for step, each in (("gate", inputs["verdict"]), ("promote", made)):
            assert each is not None
            outputs = {each.kind: OutputRecord(kind=each.kind, path=str(each.path), digest=each.digest)}
            done = StepRecord(step=step, status="done", outputs=outputs)
            write_record(Workspace(tmp_path / "work").step_folder(run_name, step), done)
        return json.loads((draft / "promotion" / "promotion.json").read_text(encoding="utf-8"))

    return run


def test_a_pass_moves_the_alias_and_the_same_model_again_is_already_champion(uri: str, promoted) -> None:
    first = promoted("a", "one", passed=True, met=None)
    assert (first["version"], first["moved"]) == (1, True)
    assert first["aliases"] == {"challenger": 1, "champion": 1}
    again = promoted("a", "one", passed=True, met=1)
    assert (again["version"], again["moved"], again["already_champion"]) == (1, False, True)
    second = promoted("a", "two", passed=True, met=1)
    assert second["aliases"] == {"challenger": 2, "champion": 2, "previous_champion": 1}
    assert "must not be mixed" not in second["text"]  # both cards name the same index version


def test_version_tags_have_lineage_verdict_and_scores(uri: str, promoted) -> None:
    promoted("g", "one", passed=True, met=None)
    promoted("g", "two", passed=True, met=1)
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("g", "2").tags
    assert {key: tags[f"embedline.{key}"] for key in FINGERPRINT} == FINGERPRINT
    assert json.loads(tags["embedline.scores"]) == {"Docs": 0.71, "Docs (lexical)": 0.5}
    assert (tags["embedline.index_version"], tags["embedline.judged_against"]) == ("abc123", "1")
    assert tags["embedline.run_id"].startswith("g-")
    assert (tags["verdict"], tags["verdict.mode"]) == ("passed", "enforce")
    files = json.loads(tags["embedline.files"])
    assert {file for file in files if not file.startswith("code/")} == {
        "model.safetensors",
        "embedline.json",
        "onnx/model.onnx",
        "MLmodel",
        "requirements.txt",
    }
    entry = history("g", uri=uri)[1].entry
    assert (entry.scores["Docs"], entry.verdict, entry.by) == (0.71, "passed", tags_run(tags))


def test_tags_longer_than_mlflow_takes_do_not_stop_a_registration(
    uri: str, promoted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of sources and sets: MLflow would refuse the version after all training."""
    from embedline.steps.shared import version_tags

    scores = {f"set-{number:04d} of a long name that says what is in it": 0.5 for number in range(3000)}
    monkeypatch.setattr(version_tags, "main_scores", lambda folder: scores)
    monkeypatch.setitem(FINGERPRINT, "manifest", "x" * 100_001)
    promoted("long", "one", passed=True, met=None)
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("long", "1").tags
    kept = json.loads(tags["embedline.scores"])
    assert kept == dict(list(scores.items())[: len(kept)])
    assert len(kept) > 1000
    assert "embedline.manifest" not in tags
    assert tags["embedline.train_key"] == FINGERPRINT["train_key"]


def tags_run(tags: dict[str, str]) -> str:
    return f"run {tags['embedline.run_id']}"


def test_the_registered_folder_holds_model_and_onnx(uri: str, promoted) -> None:
    promoted("b", "one", passed=True, met=None)
    champion = get_champion("b", uri=uri)
    assert champion is not None
    assert champion.path is not None
    assert (champion.path / "model.safetensors").read_text(encoding="utf-8") == "one"
    assert (champion.path / "onnx" / "model.onnx").read_text(encoding="utf-8") == "graph"


def test_refused_candidate_is_registered_without_a_move(uri: str, promoted) -> None:
    promoted("c", "one", passed=True, met=None)
    refused = promoted("c", "two", passed=False, met=1)
    assert (refused["version"], refused["moved"], refused["champion"]) == (2, False, 1)
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("c", "2").tags
    assert (tags["verdict"], tags["verdict.reasons"]) == ("refused", "Because.")


def test_manual_policy_keeps_the_champion_and_names_the_command(uri: str, promoted) -> None:
    done = promoted("d", "one", passed=True, met=None, policy="manual")
    assert (done["version"], done["champion"]) == (1, None)
    assert "embedline promote d 1" in done["text"]
    assert aliases("d", uri=uri) == {"challenger": 1}


def test_verdict_against_an_old_champion_moves_nothing(uri: str, promoted) -> None:
    promoted("e", "one", passed=True, met=None)
    late = promoted("e", "two", passed=True, met=None)
    assert (late["moved"], late["champion"]) == (False, 1)
    assert "Run again" in late["text"]


def test_champion_moved_by_hand_stays(uri: str, promoted) -> None:
    promoted("h", "one", passed=True, met=None)
    promoted("h", "two", passed=False, met=1)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.set_registered_model_alias("h", "champion", "2")
    done = promoted("h", "three", passed=True, met=2)
    assert (done["moved"], done["champion"]) == (False, 2)
    assert "moved by other means" in done["text"]


def test_the_version_belongs_to_the_run_that_made_it(uri: str, promoted) -> None:
    promoted("f", "one", passed=True, met=None)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = client.get_run(client.get_model_version("f", "1").run_id)
    assert run.data.tags["embedline.run_id"].startswith("f-")


def test_a_model_that_was_not_judged_is_registered_and_moves_no_alias(uri: str, promoted) -> None:
    first = promoted("i", "one", passed=None, met=None)
    assert (first["version"], first["moved"], first["aliases"]) == (1, False, {})
    assert "not judged" in first["text"]
    assert "embedline promote i 1" in first["text"]
    assert history("i", uri=uri) == []
    version = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("i", "1")
    assert (version.tags["verdict"], version.tags["verdict.reasons"]) == ("not judged", "Because.")
    assert "embedline.judged_against" not in version.tags
    assert "**not judged**" in version.description

    moved = promote_by_hand("i", 1, reason="release", by="ann", uri=uri)
    assert moved.moved
    assert "It was not judged by the gate." in moved.text
    (entry,) = [generation.entry for generation in history("i", uri=uri)]
    assert (entry.by, entry.reason, entry.verdict) == ("ann", "release", "not judged")

    second = promoted("i", "two", passed=None, met=1)
    assert (second["version"], second["aliases"]) == (2, {"champion": 1})
    promoted("i", "three", passed=True, met=1)
    assert promote_by_hand("i", 2, reason="", by="ann", uri=uri).previous == 3, "no champion was expected"


@pytest.mark.parametrize("verdict", [True, False])
def test_a_verdict_outlives_a_run_that_does_not_judge_the_same_model(
    uri: str, promoted, verdict: bool
) -> None:
    name = f"j-{verdict}"
    promoted(name, "one", passed=verdict, met=None)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    before = client.get_model_version(name, "1")
    again = promoted(name, "one", passed=None, met=1 if verdict else None)
    after = client.get_model_version(name, "1")
    assert (after.tags, after.description) == (before.tags, before.description)
    assert again["aliases"] == ({"challenger": 1, "champion": 1} if verdict else {})


def test_a_dry_run_that_would_refuse_is_not_recorded_as_a_pass(uri: str, promoted) -> None:
    assert promoted("k", "one", passed=True, met=None, mode="dry_run", would_pass=False)["moved"]
    (entry,) = [generation.entry for generation in history("k", uri=uri)]
    assert "dry_run; the gate would have refused" in entry.reason


def test_description_and_tags_of_a_version_hold_warnings_and_scores(uri: str, promoted) -> None:
    warning = {"rule": "below_bm25", "passed": True, "note": "warning", "text": "Below BM25."}
    promoted("l", "one", passed=True, met=None, reasons=[warning])
    version = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("l", "1")
    assert version.tags["verdict.warnings"] == "Below BM25."
    assert "- **warning**: Below BM25. (`below_bm25`)" in version.description
    assert "0.710" in version.description


@pytest.mark.parametrize("passed", [True, False, None])
def test_the_same_model_again_is_champion_whatever_the_gate_finds(
    uri: str, promoted, tmp_path: Path, passed: bool | None
) -> None:
    name = f"m-{passed}"
    promoted(name, "one", passed=True, met=None)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    before = client.get_model_version(name, "1")
    again = promoted(name, "one", passed=passed, met=1)
    after = client.get_model_version(name, "1")
    assert (after.tags, after.description) == (before.tags, before.description)
    assert (again["already_champion"], again["aliases"]) == (True, {"challenger": 1, "champion": 1})
    record = finish(tmp_path / "work", f"{name}-1")
    assert (record.status, record.exit_code) == ("succeeded", 0)
    page = render_report(ReportData(name, "run", "today", verdict=record.verdict, promotion=again))
    assert "The gate refused the candidate" not in page


def test_the_champion_s_weights_with_refused_files_are_refused(uri: str, promoted, tmp_path: Path) -> None:
    """Other exported files make another version: the verdict is its own, and the run says so."""
    promoted("n", "one", passed=True, met=None)
    again = promoted("n", "two", passed=False, met=1, already_champion=True)
    assert (again["version"], again["already_champion"], again["aliases"]["champion"]) == (2, False, 1)
    assert finish(tmp_path / "work", "n-1").exit_code == 3


@pytest.mark.parametrize("mover", ["another run", "by hand"])
def test_a_pre_empted_promotion_exits_4_and_says_who_moved_the_alias(
    uri: str, promoted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mover: str
) -> None:
    name = f"o-{mover[0]}"
    promoted(name, "one", passed=True, met=None)
    promoted(name, "two", passed=mover == "another run", met=1)
    if mover == "by hand":
        MlflowClient(uri, uri).set_registered_model_alias(name, "champion", "2")
    late = promoted(name, "three", passed=True, met=1)
    assert (late["version"], late["moved"], late["champion"]) == (3, False, 2)

    record = finish(tmp_path / "work", f"{name}-2")
    assert (record.status, record.exit_code) == ("conflict", 4)
    conflict = record.model["conflict"]
    move = conflict["move"]
    assert (move["alias"], move["previous"], move["version"]) == ("champion", 1, 2)
    if mover == "another run":
        (entry,) = [g.entry for g in history(name, uri=uri) if g.entry.version == 2]
        assert (move["by"], move["when"], move["reason"]) == (f"run {name}-1", entry.when, entry.reason)
        said = (f"from version 1 to version 2 by run {name}-1 at {entry.when}", f"автор: run {name}-1")
    else:
        said = ("MLflow records neither user nor time", "в обход embedline (было: 1, стало: 2)")
    assert [part in conflict[key] for key, part in zip(("text", "ru"), said, strict=True)] == [True, True]

    page = render_report(ReportData(name, "run", "today", verdict=record.verdict, promotion=late))
    assert [conflict[key] in html.unescape(page) for key in ("text", "ru")] == [True, True]
    monkeypatch.setattr(outcome, "next_commands", lambda *_: [])
    printed = io.StringIO()
    outcome.show_outcome(Console(file=printed, width=500), record, tmp_path)
    assert f"not promoted: {conflict['text']}" in printed.getvalue()


def test_a_run_for_another_alias_records_what_that_alias_was_compared_with(uri: str, promoted) -> None:
    promoted("p", "one", passed=True, met=None, alias="staging")
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("p", "1").tags
    assert tags["embedline.judged_against.staging"] == "none"
    assert "embedline.judged_against" not in tags

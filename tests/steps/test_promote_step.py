"""The promote step: every candidate is registered, the alias moves only when gate and policy allow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.tracker import Tracker
from embedline.config.outcome import PromoteConfig, TrackingConfig
from embedline.registry.server import default_uri, prepare
from embedline.registry.versions import aliases, get_champion
from embedline.steps import promote
from embedline.steps.base import Context, Slice, Workspace


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = default_uri(tmp_path_factory.mktemp("tracking"))
    prepare(address)
    return address


@pytest.fixture
def promoted(uri: str, tmp_path: Path):
    """Runs the step for a model of some content; each call is a run of its own."""
    runs = iter(range(100))

    def artifact(folder: Path, kind: str, files: dict[str, str]) -> Artifact:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return write_manifest(folder, kind=kind, step="test", key="key")

    def run(name: str, content: str, *, passed: bool, met: int | None, move: bool = True) -> dict[str, Any]:
        run_name = f"{name}-{next(runs)}"
        folder = tmp_path / run_name
        reasons = [{"rule": "rules.0", "passed": passed, "text": "Because."}]
        verdict = json.dumps({"passed": passed, "mode": "enabled", "reasons": reasons})
        inputs: dict[str, Artifact | None] = {
            "candidate": artifact(folder / "model", "model", {"model.safetensors": content}),
            "onnx": artifact(folder / "onnx", "onnx", {"model.onnx": "graph"}),
            "verdict": artifact(folder / "verdict", "verdict", {"verdict.json": verdict}),
            "scores": None,
        }
        config = {
            "name": name,
            "promote": PromoteConfig(move_alias=move).model_dump(),
            "tracking": TrackingConfig(uri=uri).model_dump(),
        }
        pins = {"champion": {"version": met, "digest": ""} if met else None}
        draft = folder / "draft"
        draft.mkdir()
        context = Context(
            "promote",
            "key",
            Slice(config=config, pins=pins),
            inputs,
            Workspace(tmp_path / "work"),
            run_name,
            Tracker(folder / "spool"),
            draft,
        )
        promote.run(context)
        assert [p.name for p in draft.iterdir()] == ["promotion"]
        return json.loads((draft / "promotion" / "promotion.json").read_text(encoding="utf-8"))

    return run


def test_a_pass_moves_the_alias_and_the_same_model_again_is_already_champion(uri: str, promoted) -> None:
    first = promoted("a", "one", passed=True, met=None)
    assert (first["version"], first["moved"], first["aliases"]) == (1, True, {"champion": 1})
    again = promoted("a", "one", passed=True, met=1)
    assert (again["version"], again["moved"], again["already_champion"]) == (1, False, True)
    second = promoted("a", "two", passed=True, met=1)
    assert second["aliases"] == {"champion": 2, "previous_champion": 1}


def test_the_registered_folder_holds_model_and_onnx(uri: str, promoted) -> None:
    promoted("b", "one", passed=True, met=None)
    champion = get_champion("b", uri=uri)
    assert champion is not None
    assert champion.path is not None
    assert (champion.path / "model.safetensors").read_text(encoding="utf-8") == "one"
    assert (champion.path / "onnx" / "model.onnx").read_text(encoding="utf-8") == "graph"


def test_a_refused_candidate_is_registered_with_its_verdict_and_nothing_moves(uri: str, promoted) -> None:
    promoted("c", "one", passed=True, met=None)
    refused = promoted("c", "two", passed=False, met=1)
    assert (refused["version"], refused["moved"], refused["champion"]) == (2, False, 1)
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("c", "2").tags
    assert (tags["verdict"], tags["verdict.reasons"]) == ("refused", "Because.")


def test_a_policy_of_registering_only_leaves_the_alias(uri: str, promoted) -> None:
    outcome = promoted("d", "one", passed=True, met=None, move=False)
    assert (outcome["version"], outcome["champion"]) == (1, None)
    assert aliases("d", uri=uri) == {}


def test_a_verdict_against_a_champion_that_has_changed_moves_nothing(uri: str, promoted) -> None:
    promoted("e", "one", passed=True, met=None)
    late = promoted("e", "two", passed=True, met=None)
    assert (late["moved"], late["champion"]) == (False, 1)
    assert "run again" in late["text"]


def test_the_version_belongs_to_the_run_that_made_it(uri: str, promoted) -> None:
    promoted("f", "one", passed=True, met=None)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = client.get_run(client.get_model_version("f", "1").run_id)
    assert run.data.tags["embedline.run_id"].startswith("f-")

"""retrain.yml from event to run: what each trigger resolves to, and its commands against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp_server import KfpServer
from mlflow import MlflowClient
from tracking_server import tracking_server
from workflow_service import Outcome, Service

from embedline.planning.data_lock import write_data_manifest
from embedline.planning.fingerprint import Fingerprint, take_fingerprint

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("event", "more", "preset", "overrides"),
    [
        ("push", {}, "my-search", ""),
        ("schedule", {}, "my-search", ""),
        ("workflow_dispatch", {}, "my-search", ""),
        (
            "workflow_dispatch",
            {"inputs": {"preset": "ru-docs", "overrides": "seed=3", "force": True}},
            "ru-docs",
            "seed=3",
        ),
        (
            "repository_dispatch",
            {"payload": {"client_payload": {"preset": "bge-m3", "overrides": '["seed=4"]'}}},
            "bge-m3",
            '["seed=4"]',
        ),
        ("repository_dispatch", {"payload": {"action": "retrain"}}, "my-search", ""),
    ],
)
def test_arguments_of_each_trigger(
    tmp_path: Path, event: str, more: dict[str, Any], preset: str, overrides: str
) -> None:
    service = Service(
        tmp_path,
        variables={"EMBEDLINE_PRESET": "my-search", "EMBEDLINE_DATA_MANIFEST": "my/data.lock.json"},
        secrets={"MLFLOW_TRACKING_TOKEN": "canary-tracking"},
        environment_secrets={"training": {"KFP_TOKEN": "canary-kfp"}},
    )
    done = service.run("retrain.yml", event, execute=False, **more)
    asked = done.step("Find what changed").environment
    assert (asked["PRESET"], asked["OVERRIDES"], asked["DATA_MANIFEST"]) == (
        preset,
        overrides,
        "my/data.lock.json",
    )
    assert asked["MLFLOW_TRACKING_TOKEN"] == "canary-tracking"
    assert "KFP_TOKEN" not in asked
    assert done.group.startswith(f"retrain-{preset}-")
    forced = bool(more.get("inputs", {}).get("force"))
    assert done.jobs == {"plan": "success", "submit": "success" if forced else "skipped"}
    if forced:  # nothing was executed, so nothing said that a run is needed
        told = done.step("Start a run").environment
        assert (told["UNLESS"], told["KFP_TOKEN"]) == ("--even-if-unchanged", "canary-kfp")
        assert done.environments["submit"] == "training"


def test_a_forced_retraining_is_not_displaced_by_a_push_that_waits(tmp_path: Path) -> None:
    """The service cancels the waiting run of a group when another run of the group begins to wait."""

    def group(event: str, **more: Any) -> str:
        return Service(tmp_path).run("retrain.yml", event, execute=False, **more).group

    pushed = group("push")
    assert group("push") == pushed  # the newer push has the older one's commits
    asked = [
        group("workflow_dispatch", inputs={"force": True}),
        group("workflow_dispatch", inputs={"overrides": "seed=3"}),
        group("repository_dispatch", payload={"client_payload": {}}),
    ]
    assert len({pushed, *asked}) == 4


def test_without_settings_the_demo_is_retrained(tmp_path: Path) -> None:
    done = Service(tmp_path).run("retrain.yml", "schedule", execute=False)
    assert done.step("Find what changed").environment["PRESET"] == "demo"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with KfpServer(token="canary-kfp") as running:
        yield running


class Project:
    """A user's preset with its data manifest, without the data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        self.preset = folder / "preset.yaml"
        self.preset.write_text("name: my-search\ndata: {sources: [{path: data/pairs.jsonl}]}\n")
        self.manifest = folder / "data.lock.json"
        self.add_row()

    def add_row(self) -> None:
        with (self.folder / "data" / "pairs.jsonl").open("a") as file:
            file.write('{"query": "how to reset it", "pos": ["Press the button for ten seconds."]}\n')
        write_data_manifest(self.manifest, self.fingerprint())

    def fingerprint(self, *overrides: str) -> Fingerprint:
        return take_fingerprint(str(self.preset), overrides, self.folder / "runs")


def register(tracking: str, found: Fingerprint) -> None:
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    tags = {"embedline.train_key": found.train_key, "embedline.manifest": found.manifest()}
    client.create_registered_model("my-search")
    client.create_model_version("my-search", "s3://nowhere/1", tags=tags)


@pytest.mark.slow
def test_from_a_changed_manifest_to_one_run(tmp_path: Path, tracking: str, kfp: KfpServer) -> None:
    project = Project(tmp_path / "project")
    register(tracking, project.fingerprint())
    bare = tmp_path / "repository"  # what is committed: the preset and the manifest, no data
    bare.mkdir()

    def retrain(event: str, **more: Any) -> Outcome:
        for path in (project.preset, project.manifest):
            (bare / path.name).write_bytes(path.read_bytes())
        folder = tmp_path / f"service-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        variables = {
            "EMBEDLINE_PRESET": str(bare / "preset.yaml"),
            "EMBEDLINE_DATA_MANIFEST": str(bare / "data.lock.json"),
            "KFP_HOST": kfp.url,
            "MLFLOW_TRACKING_URI": tracking,
        }
        secrets = {"training": {"KFP_TOKEN": "canary-kfp"}}
        return Service(folder, variables, environment_secrets=secrets).run("retrain.yml", event, **more)

    same = retrain("push")
    assert same.jobs == {"plan": "success", "submit": "skipped"}, same.log
    assert "run needed: no: version 1 of my-search has this key." in same.summary

    project.add_row()
    changed = retrain("push")
    assert changed.jobs == {"plan": "success", "submit": "success"}, changed.log
    assert "since version 1 of my-search:" in changed.summary
    assert "sources.pairs: size " in changed.summary
    assert ", rows 1 → 2, checksum " in changed.summary
    (run,) = kfp.all("runs")
    assert project.fingerprint().train_key in run["description"]
    assert run["run_id"] in changed.summary

    again = retrain("repository_dispatch", payload={"client_payload": {}})
    assert again.jobs == {"plan": "success", "submit": "success"}, again.log
    assert (
        f"nothing started: run {run['display_name']} ({run['run_id']}) is training this already" in again.log
    )
    assert len(kfp.all("runs")) == 1

    forced = retrain(
        "workflow_dispatch", inputs={"overrides": '["seed=3", "supervised.steps=7"]', "force": True}
    )
    assert forced.jobs == {"plan": "success", "submit": "success"}, forced.log
    assert "seed: 0 → 3" in forced.summary
    newest = kfp.all("runs")[-1]
    assert len(kfp.all("runs")) == 2
    assert project.fingerprint("seed=3", "supervised.steps=7").train_key in newest["description"]
    parameters = newest["runtime_config"]["parameters"]
    assert json.loads(parameters["overrides"]) == ["seed=3", "supervised.steps=7"]
    for outcome in (same, changed, again, forced):
        assert "canary" not in outcome.log + outcome.summary


@pytest.mark.slow
def test_untrusted_text_is_never_a_command(tmp_path: Path, tracking: str) -> None:
    evil = "demo\"; touch hacked; $(touch hacked) `touch hacked` ' --uri=x"
    done = Service(tmp_path, {"MLFLOW_TRACKING_URI": tracking}).run(
        "retrain.yml", "repository_dispatch", payload={"client_payload": {"preset": evil, "overrides": evil}}
    )
    assert done.jobs == {"plan": "failure", "submit": "skipped"}
    assert done.step("Find what changed").code == 2
    assert list(tmp_path.rglob("hacked")) == []


@pytest.mark.slow
def test_a_registry_that_is_down_starts_nothing(tmp_path: Path, kfp: KfpServer) -> None:
    project = Project(tmp_path / "project")
    variables = {"EMBEDLINE_PRESET": str(project.preset), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = Service(tmp_path, {**variables, "KFP_HOST": kfp.url}).run("retrain.yml", "schedule")
    assert done.jobs == {"plan": "failure", "submit": "skipped"}
    assert "the tracking store does not answer" in done.log
    assert kfp.all("runs") == []


def test_the_fingerprint_command_writes_what_a_user_commits(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    (project.folder / "again.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "embedline.cli", "fingerprint", str(project.preset), "--json"]
    done = subprocess.run(
        [*command, "--write", str(project.folder / "again.json"), "--work", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["train_key"] == project.fingerprint().train_key
    assert (project.folder / "again.json").read_bytes() == project.manifest.read_bytes()

"""promote.yml: permissions, concurrency, and its command against a real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracking_server import tracking_server
from workflow_service import Outcome, Service

from embedline.artifacts.manifest import write_manifest
from embedline.registry.promotion import history
from embedline.registry.versions import PASSED, VERDICT_TAG, aliases, register

pytestmark = pytest.mark.timeout(600)
GIVEN = {"model": "mine", "version": "2", "expect": "1", "reason": 'better "by far"; $(touch hacked)'}


def test_inputs_reach_the_command_unchanged(tmp_path: Path) -> None:
    service = Service(
        tmp_path,
        variables={"MLFLOW_TRACKING_URI": "https://mlflow.example.org"},
        secrets={"MLFLOW_TRACKING_TOKEN": "of-the-repository"},
        environment_secrets={"production": {"MLFLOW_TRACKING_TOKEN": "of-production"}},
    )
    done = service.run("promote.yml", "workflow_dispatch", inputs=GIVEN, execute=False)
    told = done.step("Promote").environment
    assert (told["MODEL"], told["VERSION"], told["EXPECT"]) == ("mine", "2", "1")
    assert (told["REASON"], told["BY"]) == (GIVEN["reason"], "anna")
    assert told["MLFLOW_TRACKING_TOKEN"] == "of-production"
    assert (done.group, done.environments) == ("promote-mine-2", {"promote": "production"})
    with pytest.raises(AssertionError, match="reason is required"):
        service.run(
            "promote.yml", "workflow_dispatch", inputs={"model": "mine", "version": "2", "expect": "1"}
        )


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.mark.slow
def test_promotion_and_one_with_an_outdated_expectation(tmp_path: Path, tracking: str) -> None:
    for content in ("one", "two"):
        folder = tmp_path / content
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content.encode())
        model = write_manifest(folder, kind="model", step="train_supervised", key=content)
        register("mine", model.path, digest=model.digest, tags={VERDICT_TAG: PASSED}, uri=tracking)

    def promote(**inputs: str) -> Outcome:
        folder = tmp_path / f"service-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        service = Service(folder, variables={"MLFLOW_TRACKING_URI": tracking})
        return service.run("promote.yml", "workflow_dispatch", inputs={**GIVEN, **inputs})

    first = promote(version="1", expect="none")
    assert first.jobs == {"promote": "success"}, first.log
    second = promote()
    assert second.jobs == {"promote": "success"}, second.log
    assert aliases("mine", uri=tracking)["champion"] == 2
    entry = history("mine", uri=tracking)[-1].entry
    assert (entry.by, entry.reason, entry.previous) == ("anna", GIVEN["reason"], 1)
    late = promote(version="1", expect="1")
    assert late.jobs == {"promote": "failure"}
    assert late.step("Promote").code == 4
    assert aliases("mine", uri=tracking)["champion"] == 2
    assert list(tmp_path.rglob("hacked")) == []
    assert MlflowClient(tracking_uri=tracking).get_registered_model("mine").aliases["champion"] == "2"

"""Registration, lookup and download of model folders. Read back with mlflow's own client."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from embedline.errors import InputError, StepError
from embedline.registry import versions
from embedline.registry.download import download
from embedline.registry.promotion import promote
from embedline.registry.server import TrackingError
from embedline.registry.versions import aliases, get_champion, register, version_of


def registered(uri: str, artifact, name: str = "demo", **tags: str) -> int:
    given = {"verdict": "passed", **tags}
    return register(name, artifact.path, digest=artifact.digest, tags=given, uri=uri)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_digest_is_one_version_with_the_latest_tags(uri: str, make_model) -> None:
    model, other = make_model("one"), make_model("two")
    assert registered(uri, model, verdict="refused") == 1
    assert registered(uri, other) == 2
    assert registered(uri, model, verdict="passed") == 1
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.search_model_versions("name='demo'")
    assert sorted(int(v.version) for v in found) == [1, 2]
    assert client.get_model_version("demo", "1").tags["verdict"] == "passed"
    theirs = {versions.DIGEST_TAG: other.digest}
    assert version_of("demo", theirs, uri=uri) == 2
    assert version_of("demo", {versions.DIGEST_TAG: "unknown"}, uri=uri) is None
    assert version_of("nobody", theirs, uri=uri) is None


def test_another_export_of_the_same_model_is_another_version(uri: str, make_model) -> None:
    model = make_model("one")
    assert registered(uri, model) == 1
    (model.path / "onnx").mkdir()
    (model.path / "onnx" / "model.onnx").write_bytes(b"graph")
    assert registered(uri, model) == 2
    assert registered(uri, model) == 2


def test_interrupted_verdict_tags_never_pass(uri: str, make_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("one")
    registered(uri, model, **{"verdict.reasons": "fine"})

    class Killed(BaseException):
        pass

    for before, after in (("passed", "refused"), ("refused", "passed")):
        registered(uri, model, verdict=before, **{"verdict.reasons": before, "verdict.mode": before})
        for cut in (1, 2):
            registered(uri, model, verdict=before, **{"verdict.reasons": before, "verdict.mode": before})
            left = iter(range(cut))
            real = MlflowClient.set_model_version_tag

            def dies(self, *args: str, left=left, real=real) -> None:
                if next(left, None) is None:
                    raise Killed
                real(self, *args)

            with monkeypatch.context() as patched:
                patched.setattr(MlflowClient, "set_model_version_tag", dies)
                with pytest.raises(Killed):
                    registered(uri, model, verdict=after, **{"verdict.reasons": after, "verdict.mode": after})
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            assert client.get_model_version("demo", "1").tags["verdict"] == "refused"


def test_the_champion_is_found_and_downloaded_whole(uri: str, make_model, tmp_path: Path) -> None:
    model = make_model("one")
    assert get_champion("demo", uri=uri) is None
    assert aliases("demo", uri=uri) == {}
    version = registered(uri, model)
    assert get_champion("demo", uri=uri) is None
    promote("demo", version, reason="test", by="ann", uri=uri)
    champion = get_champion("demo", uri=uri)
    assert champion is not None
    assert (champion.version, champion.digest) == (1, model.digest)
    assert champion.path is not None
    assert contents(champion.path) == contents(model.path)
    copy = download("demo", 1, tmp_path / "deep" / "copy", uri=uri)
    assert contents(copy) == contents(model.path)
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_download_of_changed_files_leaves_nothing(uri: str, make_model, tmp_path: Path) -> None:
    version = registered(uri, make_model("one"))
    promote("demo", version, reason="test", by="ann", uri=uri)
    champion = get_champion("demo", uri=uri)
    assert champion is not None
    assert champion.path is not None
    (champion.path / "model.safetensors").write_bytes(b"two" * 100)
    with pytest.raises(StepError, match=r"model\.safetensors has changed since it was registered: SHA-256"):
        download("demo", version, tmp_path / "copy", uri=uri)
    assert not (tmp_path / "copy").exists()
    with pytest.raises(InputError, match="has no version 9"):
        download("demo", 9, tmp_path / "copy", uri=uri)
    with pytest.raises(InputError, match="exists already"):
        download("demo", version, tmp_path, uri=uri)


def test_registration_cut_off_after_the_upload_is_resumed(
    uri: str, make_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("one")

    class Killed(BaseException):
        pass

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    for call in ("log_model_artifacts", "finalize_logged_model", "create_model_version"):
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, call, killed)
            with pytest.raises(Killed):
                registered(uri, model)
    assert registered(uri, model) == 1
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("embedline").experiment_id
    logged = client.search_logged_models([experiment])
    assert [(m.status, m.tags[versions.DIGEST_TAG]) for m in logged] == [("READY", model.digest)]


def test_mlflow_run_id_in_the_environment_does_not_own_the_model(
    uri: str, make_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    foreign, own = client.create_run("0").info.run_id, client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign)
    model = make_model("one")
    register("demo", model.path, digest=model.digest, tags={}, run_id=own, uri=uri)
    assert client.get_model_version("demo", "1").run_id == own
    assert client.get_run(foreign).info.status == "RUNNING"


@pytest.mark.parametrize("ambient", [None, "http://127.0.0.1:9"])
def test_register_restores_the_global_tracking_uri(
    uri: str, make_model, monkeypatch: pytest.MonkeyPatch, ambient: str | None
) -> None:
    if ambient:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", ambient)
    assert registered(uri, make_model("one")) == 1
    assert os.environ.get("MLFLOW_TRACKING_URI") == ambient
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not mlflow.is_tracking_uri_set()


def test_model_name_refused_by_mlflow_is_an_input_error(uri: str, make_model) -> None:
    with pytest.raises((InputError, TrackingError), match="a/b"):
        registered(uri, make_model("one"), name="a/b")

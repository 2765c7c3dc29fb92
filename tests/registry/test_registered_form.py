"""A registered model is loaded by MLflow's own loaders alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from packaging.requirements import Requirement
from sentence_transformers import SentenceTransformer

from embedline.artifacts.manifest import Artifact, folder_digest, write_manifest
from embedline.config.model import Prompt
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import save_embedder
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.registry import files, promotion
from embedline.registry.copy import promote_across
from embedline.registry.registered_form import registered_form
from embedline.registry.server import default_uri, prepare
from embedline.registry.versions import get_champion, register

TEXTS = ["Как настроить почту?", "The printer does not answer.", "VPN"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("made") / "model"
    tokenizer = train_tokenizer(TEXTS * 9, 320)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    prompts = PromptTable({"default": Prompt(query="query: ", document="passage: ")})
    spec = EmbedderSpec("mean", query_length=16, document_length=16, dims=(8,), prompts=prompts)
    save_embedder(Embedder(new_backbone("modernbert", sizes, tokenizer, 1), tokenizer, spec), folder)
    return write_manifest(folder, kind="model", step="train_supervised", key="key")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Artifact) -> str:
    """Register one version in its own registry and set mlflow's URI to it."""
    uri = default_uri(tmp_path / "tracking")
    prepare(uri)
    with registered_form(model.path, None, tmp_path) as folder:
        register("mail", folder, digest=model.digest, tags={}, uri=uri)
    MlflowClient(uri, uri).set_registered_model_alias("mail", "champion", "1")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", uri)
    monkeypatch.setattr(mlflow.tracking._model_registry.utils, "_registry_uri", uri)
    return "models:/mail@champion"


def test_pyfunc_loads_the_champion_and_gives_sentence_transformers_vectors(
    address: str, model: Artifact
) -> None:
    served = mlflow.pyfunc.load_model(address)
    ours = SentenceTransformer(str(model.path))
    np.testing.assert_allclose(served.predict(TEXTS), ours.encode(TEXTS), atol=1e-6)
    asked = served.predict(TEXTS, params={"prompt_name": "query", "truncate_dim": 8})
    options = {"truncate_dim": 8, "normalize_embeddings": True}
    np.testing.assert_allclose(asked, ours.encode(TEXTS, prompt_name="query", **options), atol=1e-6)
    assert not np.allclose(asked, ours.encode(TEXTS, **options))
    assert not served.metadata.signature.inputs.is_tensor_spec()


def test_requirements_file_lists_the_loading_packages(address: str) -> None:
    lines = Path(mlflow.pyfunc.get_model_dependencies(address)).read_text(encoding="utf-8").splitlines()
    assert {Requirement(line).name for line in lines} == {
        "mlflow",
        "sentence-transformers",
        "torch",
        "transformers",
    }


def test_the_same_model_has_the_same_files_each_time(model: Artifact, tmp_path: Path) -> None:
    digests = []
    for _ in range(2):
        with registered_form(model.path, None, tmp_path) as folder:
            digests.append(folder_digest(folder))
    assert digests[0] == digests[1] != folder_digest(model.path)
    assert list(tmp_path.iterdir()) == []


def test_symlinks_of_the_hub_cache_are_registered_as_files(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "1"
    snapshot = tmp_path / "snapshots" / "main"
    blob.parent.mkdir()
    snapshot.mkdir(parents=True)
    blob.write_text("weights")
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(blob, snapshot))
    with registered_form(snapshot, None, tmp_path) as folder:
        assert not (folder / "model.safetensors").is_symlink()
        assert (folder / "model.safetensors").read_text() == "weights"


def test_a_model_that_mlflow_made_keeps_its_own_description(model: Artifact, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "MLmodel").write_text("flavors: {}\n")
    with registered_form(outside, None, tmp_path) as folder:
        assert (folder / "MLmodel").read_text() == "flavors: {}\n"
        assert not (folder / "requirements.txt").exists()


def test_a_version_that_mlflow_loaded_is_rolled_back_to_and_copied(
    address: str, model: Artifact, tmp_path: Path
) -> None:
    uri, production = mlflow.get_tracking_uri(), default_uri(tmp_path / "production")
    other = tmp_path / "other"
    shutil.copytree(model.path, other)
    (other / "README.md").write_text("Another version.", encoding="utf-8")
    changed = write_manifest(other, kind="model", step="train_supervised", key="other")
    MlflowClient(uri, uri).delete_registered_model_alias("mail", "champion")
    for digest in (model.digest, changed.digest):
        folder = model.path if digest == model.digest else other
        with registered_form(folder, None, tmp_path) as form:
            version = register("mail", form, digest=digest, tags={"verdict": "passed"}, uri=uri)
        promotion.promote("mail", version, reason="", by="ann", uri=uri)

    mlflow.pyfunc.load_model("models:/mail/1")
    assert promotion.rollback("mail", by="ann", uri=uri).version == 1
    champion = get_champion("mail", uri=uri)
    assert champion is not None
    assert champion.path is not None
    assert (champion.path / "registered_model_meta").is_file(), "MLflow wrote it there"
    (champion.path / "__pycache__").mkdir()
    (champion.path / "__pycache__" / "modeling.cpython-311.pyc").write_bytes(b"bytecode")

    assert promote_across("mail", 1, uri=uri, to_uri=production, reason="", by="ann").version == 1
    copied = get_champion("mail", uri=production)
    assert copied is not None
    assert copied.path is not None
    assert not (copied.path / "registered_model_meta").exists()
    assert copied.tags["embedline.files"] == champion.tags["embedline.files"]
    assert promote_across("mail", 1, uri=uri, to_uri=production, reason="", by="ann").moved is False


def test_a_folder_that_mlflow_downloaded_is_the_same_model(
    address: str, model: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    downloaded = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path / "copy")))
    assert (downloaded / "registered_model_meta").is_file(), "MLflow wrote it there"
    with (
        registered_form(model.path, None, tmp_path) as made,
        registered_form(downloaded, None, tmp_path) as form,
    ):
        assert folder_digest(form) == folder_digest(downloaded) == folder_digest(made)
        assert not (form / "registered_model_meta").exists()


def test_files_on_a_server_are_compared_without_what_loading_added(tmp_path: Path) -> None:
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    for path in (
        "model.bin",
        "registered_model_meta",
        "code/a.py",
        "code/__pycache__/a.pyc",
        "code/added.py",
    ):
        (tmp_path / path).write_text(path, encoding="utf-8")
    assert set(files._remote_digests(tmp_path.as_uri(), "")) == {"model.bin", "code/a.py", "code/added.py"}
    recorded = {"embedline.files": '{"a": "1", "registered_model_meta": "2"}'}
    assert files.recorded_files(recorded) == {"a": "1"}, "as an older embedline recorded it"

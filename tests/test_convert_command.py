"""The command `convert`: a folder or a registered model in the form of another library's loader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.cli.app import app
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import save_embedder
from embedline.models.tokenizer import train_tokenizer
from embedline.registry.registered_form import registered_form
from embedline.registry.server import default_uri, prepare
from embedline.registry.versions import register

Run = Callable[..., tuple[int, str]]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A run's folder with a model in it; tests must not write there."""
    folder = tmp_path_factory.mktemp("run") / "model"
    tokenizer = train_tokenizer(["Как настроить почту?", "The printer does not answer."] * 9, 320)
    spec = EmbedderSpec(heads=("dense", "lexical", "multi_vector"), query_length=16, document_length=16)
    save_embedder(Embedder(new_backbone("bert", SIZES, tokenizer, 1), tokenizer, spec), folder)
    return write_manifest(folder, kind="model", step="train_supervised", key="key")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["convert", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_convert_writes_each_form(run: Run, model: Artifact, tmp_path: Path) -> None:
    code, printed = run(str(model.path.parent), "new/flag", "--to", "flagembedding")
    assert (code, printed) == (0, "new/flag: for flagembedding; see new/flag/README.md\n")
    assert {path.name for path in (tmp_path / "new").rglob("*.pt")} == {
        "sparse_linear.pt",
        "colbert_linear.pt",
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["flag"]
    code, printed = run(str(model.path), "sparse", "--to", "sparse-encoder", "--json")
    assert json.loads(printed) == {"model": str(model.path), "to": "sparse-encoder", "folder": "sparse"}
    assert (tmp_path / "sparse" / "lexical_pooling.py").is_file()


def test_convert_takes_a_registered_model(run: Run, model: Artifact, tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "tracking")
    prepare(uri)
    with registered_form(model.path, None, tmp_path) as folder:
        register("mail", folder, digest=model.digest, tags={}, uri=uri)
    code, printed = run("models:/mail/1", "late", "--to", "multi-vector-encoder", "--uri", uri)
    assert code == 0, printed
    assert json.loads((tmp_path / "late" / "modules.json").read_text())[-1]["path"] == "3_MultiVectorMask"


def test_convert_refuses_before_it_writes(run: Run, model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    for words, expected in (
        ((str(model.path), "kept", "--to", "flagembedding"), "kept: exists already"),
        (("onnx", "new", "--to", "flagembedding"), "is an ONNX export"),
        ((str(tmp_path), "new", "--to", "sparse-encoder"), "not a model folder"),
        ((str(model.path), "new", "--to", "colbert"), "is not one of"),
    ):
        code, printed = run(*words)
        assert code == 2, printed
        assert expected in printed
    assert not (tmp_path / "new").exists()

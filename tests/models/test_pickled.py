"""Pickled weights: converted once without running code, or refused before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from embedline.config.load import validate_config
from embedline.errors import InputError
from embedline.models.folder import load_embedder
from embedline.models.resolve import resolve_model
from embedline.planning.pins import pin_models

TEXTS = ["How do I set up mail on my phone?", "The printer does not answer."]


class Payload:
    """An object whose unpickling runs code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.fixture
def pickled(make_embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sentence-transformers folder whose only weights are pytorch_model.bin."""
    from embedline.models.folder import save_embedder

    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "base"
    save_embedder(make_embedder("bert"), folder)
    for name in ("embedline.json", "manifest.json"):
        (folder / name).unlink(missing_ok=True)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_pickled_weights_are_converted_once_and_kept_equal(pickled: Path) -> None:
    found = resolve_model(str(pickled))
    assert found.path.parent.name == "embedline"
    assert not list(found.path.rglob("*.bin"))
    peer = SentenceTransformer(str(pickled), device="cpu")  # reads the pickled file
    np.testing.assert_allclose(load_embedder(found.path).encode(TEXTS), peer.encode(TEXTS), atol=1e-5)
    written = (found.path / "model.safetensors").stat().st_mtime_ns
    again = resolve_model(str(pickled))
    assert (again.path, again.digest) == (found.path, found.digest)
    assert (again.path / "model.safetensors").stat().st_mtime_ns == written
    (pickled / "README.md").write_text("changed")
    assert resolve_model(str(pickled)).digest != found.digest


def test_base_and_teacher_are_pinned_as_converted(pickled: Path, tmp_path: Path) -> None:
    data = {"sources": [{"path": "pairs.jsonl"}]}
    model = {"base": str(pickled)}
    config = validate_config(
        {"name": "tiny", "data": data, "model": model, "teacher": {"model": str(pickled)}}, where="preset"
    )
    pinned = pin_models(config, tmp_path)
    found = resolve_model(str(pickled))
    assert pinned.pins["base"] == pinned.pins["teacher"] == found.digest
    assert pinned.locations["base"] == str(found.path)


def test_tied_weights_keep_each_of_their_names(pickled: Path) -> None:
    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    table = weights["embeddings.word_embeddings.weight"]
    torch.save({**weights, "tied": table, "part": table[:3]}, pickled / "pytorch_model.bin")
    found = load_file(resolve_model(str(pickled)).path / "model.safetensors")
    assert torch.equal(found["tied"], table)
    assert torch.equal(found["part"], table[:3])


def test_sharded_weights_and_old_files_are_converted(pickled: Path) -> None:
    weights = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    (pickled / "pytorch_model.bin").unlink()
    names = sorted(weights)
    shards = {"pytorch_model-00001.bin": names[:5], "pytorch_model-00002.bin": names[5:]}
    for file, part in shards.items():
        torch.save(
            {n: weights[n] for n in part},
            pickled / file,
            _use_new_zipfile_serialization=file < "pytorch_model-00002",
        )
    index = pickled / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {n: file for file, part in shards.items() for n in part}}))
    found = load_file(resolve_model(str(pickled)).path / "model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in names)
    (pickled / "pytorch_model-00002.bin").unlink()
    with pytest.raises(InputError, match=r"names the part 'pytorch_model-00002\.bin', which is not there"):
        resolve_model(str(pickled))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"embeddings": Payload()}, r"needs code to be read \([\w.]*print\), which is not run"),
        ([1, 2], "holds other things than a model's weights"),
        ("cut", "pytorch_model.bin"),
    ],
)
def test_a_file_that_cannot_be_converted_is_refused_by_its_setting(
    pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, message: str
) -> None:
    file = pickled / "pytorch_model.bin"
    if content == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    else:
        torch.save(content, file)
    config = validate_config(
        {"name": "tiny", "data": {"sources": [{"path": "p.jsonl"}]}, "model": {"base": str(pickled)}},
        where="preset",
    )
    with pytest.raises(InputError, match=message) as error:
        pin_models(config, tmp_path)
    assert error.value.where.startswith("model.base: ")
    assert "run" not in capsys.readouterr().out
    assert not list((tmp_path / "home").rglob("model*"))


def test_a_hub_model_without_safetensors_comes_with_its_pickled_weights(
    pickled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    def snapshot_download(
        name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        names = [str(file.relative_to(pickled)) for file in pickled.rglob("*") if file.is_file()]
        for path in filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (tmp_path / "abc" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pickled / path, tmp_path / "abc" / path)
        return str(tmp_path / "abc")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = resolve_model("org/name")
    assert found.revision == "abc"
    assert load_embedder(found.path).encode(TEXTS).shape == (2, 32)

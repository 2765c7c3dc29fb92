from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from embedline.errors import InputError
from embedline.export import runtime as module
from embedline.export.runtime import OnnxEmbedder

_WITHOUT_TORCH = """
import sys
from pathlib import Path
from embedline.export.runtime import OnnxEmbedder
vectors = OnnxEmbedder(Path(sys.argv[1]), "int8", threads=1).encode(["привет", "hello"])
assert vectors.shape == (2, 64), vectors.shape
print(sorted({"torch", "transformers", "kfp", "mlflow"} & set(sys.modules)))
"""


def test_embedding_needs_neither_torch_nor_transformers(exported):
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(exported)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_runtime_tokenises_as_the_model_does(exported, embedder, texts):
    runtime = OnnxEmbedder(exported)
    for prompt, length in [("", 48), ("search_query: ", 16), ("", 3)]:
        expected = embedder.tokenize(texts, prompt=prompt, max_length=length)
        assert runtime.tokenize(texts, prompt=prompt, max_length=length) == expected


@pytest.mark.parametrize("batch_tokens", [1, 64, 8192])
def test_the_runtime_gives_the_models_vectors_in_order(exported, embedder, texts, batch_tokens):
    runtime = OnnxEmbedder(exported, threads=1)
    found = runtime.encode(texts, prompt="search_query: ", max_length=20, batch_tokens=batch_tokens)
    expected = embedder.encode(texts, prompt="search_query: ", max_length=20)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_the_document_length_is_the_default(exported, embedder, texts):
    np.testing.assert_allclose(OnnxEmbedder(exported).encode(texts), embedder.encode(texts), atol=1e-5)


def test_no_texts_give_no_vectors(exported):
    assert OnnxEmbedder(exported).encode([]).shape == (0, 64)


def test_a_matryoshka_dim_is_the_normalised_head_of_the_vector(exported, texts):
    runtime = OnnxEmbedder(exported)
    full, cut = runtime.encode(texts), runtime.encode(texts, dim=32)
    assert cut.shape == (len(texts), 32)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)
    head = full[:, :32]
    np.testing.assert_allclose(cut, head / np.linalg.norm(head, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("dim", [0, -1, 65])
def test_a_dim_the_model_does_not_have_is_refused(exported, dim):
    with pytest.raises(InputError, match="64"):
        OnnxEmbedder(exported).encode(["a"], dim=dim)


def test_int8_is_a_quarter_of_the_size_and_near(exported, embedder, texts):
    found = OnnxEmbedder(exported, "int8").encode(texts)
    assert (found * embedder.encode(texts)).sum(1).min() > 0.99
    weights = sum(p.numel() for p in embedder.parameters())
    saved = (exported / "model.onnx").stat().st_size - (exported / "model_int8.onnx").stat().st_size
    assert saved > 0.6 * 3 * weights  # three bytes of four; the tiny graph itself weighs something


def test_int8_vectors_depend_on_their_text_alone(exported, texts):
    runtime = OnnxEmbedder(exported, "int8")
    alone = np.concatenate([runtime.encode([text]) for text in texts])
    np.testing.assert_array_equal(runtime.encode(texts), alone)
    np.testing.assert_array_equal(runtime.encode_heads(texts).dense, alone)
    assert np.abs(runtime.encode(texts, alone=False) - alone).max() > 1e-5


@pytest.mark.parametrize("scales", ["batch", None])
def test_int8_runs_in_batches_where_its_export_says_so_or_is_older(exported, texts, scales, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    card = json.loads((folder / "embedline.json").read_text(encoding="utf-8"))
    assert card.pop("int8_scales") == "text"
    (folder / "embedline.json").write_text(json.dumps(card | ({"int8_scales": scales} if scales else {})))
    runtime = OnnxEmbedder(folder, "int8")
    np.testing.assert_array_equal(runtime.encode(texts), runtime.encode(texts, alone=False))
    np.testing.assert_array_equal(
        runtime.encode(texts, alone=True), OnnxEmbedder(exported, "int8").encode(texts)
    )


def test_the_card_holds_what_an_index_needs(exported):
    runtime = OnnxEmbedder(exported)
    assert (runtime.width, runtime.dims, runtime.index_version) == (64, (32,), "abc")
    assert (runtime.query_length, runtime.document_length) == (16, 48)
    assert runtime.prompts.prompt("query") == "search_query: "


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json", "embedline.json"])
def test_a_missing_file_is_named(exported, missing, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    (folder / missing).unlink()
    with pytest.raises(InputError, match=missing):
        OnnxEmbedder(folder)


def test_a_damaged_graph_is_one_clear_error(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    (folder / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match="cannot load"):
        OnnxEmbedder(folder)
    json.loads((folder / "embedline.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("asked", "expected"), [(None, 3), (5, 5)])
def test_the_session_takes_the_threads_of_the_container(exported, monkeypatch, asked, expected):
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    options = OnnxEmbedder(exported, threads=asked)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)

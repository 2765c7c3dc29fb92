from __future__ import annotations

import shutil

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from embedline.errors import StepError
from embedline.export.parity import PROBES, measure_parity, neighbour_overlap
from embedline.export.readme import write_readme
from embedline.export.runtime import OnnxEmbedder


def test_a_good_export_passes_with_its_measures(exported, embedder, texts):
    parity = measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9999, "int8": 0.9})
    assert parity.passed
    assert parity.texts == len(texts) + len(PROBES) + 1
    fp32, int8 = parity.variants["fp32"], parity.variants["int8"]
    assert fp32.worst_difference < 1e-5 < int8.worst_difference
    assert fp32.top1 == fp32.top10 == 1.0
    assert int8.worst_cosine <= int8.mean_cosine < 1
    assert fp32.megabytes == pytest.approx((exported / "model.onnx").stat().st_size / 1e6)
    for variant in (fp32, int8):
        assert set(variant.worst_cosine_by_dim) == {"32"}
        assert (
            min(variant.text_ms, variant.tokens_per_s, variant.torch_text_ms, variant.torch_tokens_per_s) > 0
        )
    assert set(parity.as_dict()) == {"passed", "variants", "texts"}


def test_the_lowest_cosine_of_a_text_alone_to_itself_in_a_batch_is_measured(exported, embedder, texts):
    parity = measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9999, "int8": 0.9})
    assert parity.variants["fp32"].batch_cosine > 1 - 1e-6
    alone = OnnxEmbedder(exported, "int8").encode(texts)
    together = OnnxEmbedder(exported, "int8").encode(texts, alone=False)
    found = parity.variants["int8"].batch_cosine
    assert found < 1
    assert found == pytest.approx((alone * together).sum(1).min(), abs=1e-5)  # the probes are in it, too
    assert parity.as_dict()["variants"]["int8"]["batch_cosine"] == found


@pytest.mark.parametrize("scales", ["text", "batch"])
def test_the_readme_states_the_measured_effect_of_batches(exported, embedder, texts, tmp_path, scales):
    parity = measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9999, "int8": 0.9})
    write_readme(tmp_path, parity, scales)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"was {parity.variants['int8'].batch_cosine:.4f} here" in readme
    assert f"`int8_scales: {scales}`" in readme
    write_readme(tmp_path, measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9999}), scales)
    assert "int8" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_one_variant_below_its_threshold_fails_the_parity(exported, embedder, texts):
    parity = measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9, "int8": 1.0})
    assert (parity.variants["fp32"].passed, parity.variants["int8"].passed) == (True, False)
    assert not parity.passed


def test_a_matryoshka_dim_below_the_threshold_fails_the_parity(exported, embedder, texts, monkeypatch):
    turns = iter(range(100))

    def cut(vectors, dim):  # of torch's and of the export's in turn
        short = vectors[:, :dim].copy()
        short[0] *= -1 if next(turns) % 2 else 1
        return short / np.linalg.norm(short, axis=1, keepdims=True)

    monkeypatch.setattr("embedline.export.parity.unit", cut)
    parity = measure_parity(embedder, exported, texts, min_cosine={"fp32": 0.9999})
    assert parity.variants["fp32"].heads["dense"].passed
    assert parity.variants["fp32"].worst_cosine_by_dim["32"] < 0
    assert not parity.passed


def test_a_graph_of_another_model_fails(exported, make_embedder, texts):
    other = make_embedder(hidden_activation="relu", norm_eps=1e-1)
    parity = measure_parity(other, exported, texts, min_cosine={"fp32": 0.9999})
    assert not parity.passed


def test_a_vector_that_is_not_finite_stops_the_step(exported, embedder, texts, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "onnx")
    graph = onnx.load(folder / "model.onnx")
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(StepError, match=r"model.onnx gives a vector that is not finite"):
        measure_parity(embedder, folder, texts, min_cosine={"fp32": 0.9})


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 12), st.integers(0, 1000))
def test_neighbour_overlap_is_what_scikit_learn_finds(count, k, seed):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, count, 6))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    near = min(k, count - 1)
    shared = 0
    found = [
        NearestNeighbors(n_neighbors=near, metric="cosine").fit(v).kneighbors(return_distance=False)
        for v in (first, second)
    ]
    for a, b in zip(*found, strict=True):
        shared += len(set(a) & set(b))
    assert neighbour_overlap(first, second, k) == pytest.approx(shared / (near * count))
    assert neighbour_overlap(first, first.copy(), k) == 1

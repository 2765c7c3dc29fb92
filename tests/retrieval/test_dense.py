import numpy as np
import pytest

from embedline.retrieval.dense import DenseVectors, create_vectors, write_codes
from embedline.retrieval.ranking import best


@pytest.mark.parametrize("k", [1, 3, 9, 10, 50])
def test_best_orders_equal_scores_by_the_lower_index(k):
    scores = np.random.default_rng(0).integers(0, 3, 10).astype(np.float32)
    np.testing.assert_array_equal(best(scores, k), np.argsort(-scores, kind="stable")[:k])


def _vectors(count, width=24, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _kept(folder, rows, precision):
    folder.mkdir()
    create_vectors(folder, rows.shape, precision)[:] = rows
    if precision == "int8":
        write_codes(folder, rows)
    return DenseVectors.open(folder)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_precision_finds_what_a_product_with_all_vectors_finds(tmp_path, precision):
    rows, query = _vectors(3000), _vectors(1, seed=1)[0]
    scores, found = _kept(tmp_path / "kept", rows, precision).search(query, 20)
    exact = rows.astype(np.float16).astype(np.float32) if precision == "fp16" else rows
    expected = np.argsort(-(exact @ query), kind="stable")[:20]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, (exact @ query)[expected], atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_equal_vectors_are_ordered_by_the_lower_index(tmp_path, precision):
    rows = np.repeat(_vectors(3), 100, axis=0)
    _, found = _kept(tmp_path / "kept", rows, precision).search(rows[150], 5)
    assert found.tolist() == [100, 101, 102, 103, 104]


def test_int8_codes_are_within_half_a_step_of_the_vectors(tmp_path):
    rows = _vectors(500)
    rows[:, 3] = 0  # a dimension without values
    kept = _kept(tmp_path / "kept", rows, "int8")
    assert kept.codes.dtype == np.int8
    assert np.all(np.abs(kept.codes * kept.scale_D - rows) <= kept.scale_D / 2 + 1e-7)


def test_the_best_by_int8_are_scored_with_the_fp32_vectors():
    rows = np.array([[1.0, 0.0], [0.999, 0.001], [0.998, 0.0]], np.float32)
    wrong = np.array([[1, 0], [2, 0], [3, 0]], np.int8)
    kept = DenseVectors(rows, wrong, np.ones(2, np.float32))
    scores, found = kept.search(np.array([1.0, 0.0], np.float32), 2)
    assert (found.tolist(), scores.tolist()) == ([0, 1], [1.0, rows[1, 0]])

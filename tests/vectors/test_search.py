"""Exact search against a full sort in numpy and against faiss."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.vectors.search import exact_search


def full_sort(queries, documents, k):
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 60), st.integers(1, 4)),
    k=st.integers(1, 70),
    chunk=st.integers(1, 70),
)
def test_agrees_with_a_full_stable_sort_also_where_most_scores_are_equal(seed, sizes, k, chunk):
    generator = np.random.default_rng(seed)
    count, documents, width = sizes
    # small whole numbers: exact in float32, and full of ties
    q = generator.integers(-2, 3, (count, width)).astype(np.float32)
    d = generator.integers(-2, 3, (documents, width)).astype(np.float32)
    scores, indices = exact_search(q, d, k, chunk=chunk)
    expected_scores, expected = full_sort(q, d, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, expected_scores)


def test_agrees_with_faiss_and_does_not_depend_on_the_chunk():
    generator = np.random.default_rng(0)
    q = generator.standard_normal((1100, 24)).astype(np.float32)
    d = generator.standard_normal((3000, 24)).astype(np.float32)
    index = faiss.IndexFlatIP(24)
    index.add(d)
    expected_scores, expected = index.search(q, 10)
    for chunk in (257, 3000, 8192):
        scores, indices = exact_search(q, d, 10, chunk=chunk)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


@pytest.mark.parametrize(("queries", "documents", "shape"), [(0, 5, (0, 3)), (4, 0, (4, 0)), (4, 2, (4, 2))])
def test_few_or_no_rows(queries, documents, shape):
    scores, indices = exact_search(np.ones((queries, 3)), np.ones((documents, 3)), 3)
    assert scores.shape == indices.shape == shape

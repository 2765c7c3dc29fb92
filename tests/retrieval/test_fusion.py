"""Fusion: its properties, its two methods against formulas, and its file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.errors import InputError
from embedline.retrieval.bm25 import BM25
from embedline.retrieval.fusion import (
    DEFAULT_COEFFICIENTS,
    FEATURES,
    FUSION,
    LEGS,
    Candidates,
    Fusion,
    combined,
    copy_fusion,
    normalise,
    pooled,
    read_fusion,
    write_fusion,
)
from embedline.retrieval.query_features import QueryFeatures, main_script

NO_FEATURES = np.zeros((1, len(FEATURES)))


def leg(*found, width=0):
    """Candidates of one query from (document, score) pairs, best first."""
    found = sorted(found, key=lambda pair: (-pair[1], pair[0]))
    found += [(-1, 0.0)] * (width - len(found))
    return Candidates(np.array([[s for _, s in found]], float), np.array([[d for d, _ in found]], int))


legs = st.dictionaries(st.integers(0, 30), st.integers(-40, 40), min_size=1, max_size=12).map(
    lambda found: leg(*found.items(), width=12)
)


@given(legs, legs, st.floats(0, 1), st.sampled_from([0.5, 4.0, 1024.0]), st.sampled_from([0.0, -3.0, 100.0]))
def test_scaling_and_shifting_a_leg_changes_no_ranking(one, other, weight, scale, shift):
    weights = {"dense": 1 - weight, "bm25": weight}
    moved = Candidates(one.scores * scale + shift, one.indices)
    first = combined(pooled({"dense": one, "bm25": other}), weights, 30)
    second = combined(pooled({"dense": moved, "bm25": other}), weights, 30)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_allclose(first.scores, second.scores)


@given(legs, legs)
def test_a_leg_alone_in_weight_keeps_its_order(one, other):
    found = combined(pooled({"dense": one, "bm25": other}), {"dense": 1.0, "bm25": 0.0}, 40).indices[0]
    own = [d for d in one.indices[0].tolist() if d >= 0]
    assert found[: len(own)].tolist() == own
    assert set(found[found >= 0].tolist()) == set(own) | {d for d in other.indices[0].tolist() if d >= 0}


@given(legs, legs, st.floats(0, 0.9), st.floats(0.01, 0.1))
def test_more_weight_to_a_leg_never_lowers_its_best_document(one, other, weight, more):
    best = other.indices[0, 0]

    def rank(share):
        ranked = combined(pooled({"dense": one, "bm25": other}), {"dense": 1 - share, "bm25": share}, 40)
        scores = dict(zip(ranked.indices[0].tolist(), ranked.scores[0].round(9).tolist(), strict=True))
        return sum(score > scores[best] for d, score in scores.items() if d >= 0)

    assert rank(weight + more) <= rank(weight)


def test_the_best_document_has_one_and_documents_not_found_have_zero():
    found = leg((4, 10.0), (2, 7.5), (9, 5.0), width=4)
    np.testing.assert_allclose(normalise(found), [[1, 2 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(normalise(leg((4, 10.0), (2, 9.0), width=4)), [[1, 0.5, 0, 0]])
    np.testing.assert_allclose(normalise(leg((1, 3.0), (2, 3.0))), [[1, 1]])
    assert normalise(Candidates(np.zeros((2, 0)), np.zeros((2, 0), int))).shape == (2, 0)


def test_convex_is_the_weighted_mean_of_normalised_scores():
    dense = leg((0, 0.9), (1, 0.8), (2, 0.7))
    words = leg((2, 12.0), (3, 6.0), (1, 3.0))
    found = combined(pooled({"dense": dense, "bm25": words}), {"dense": 0.6, "bm25": 0.4}, 3)
    assert found.indices.tolist() == [[0, 2, 1]]
    last, words_of_1 = 1 / 3, (0 + 4.5) / (9 + 4.5)
    expected = [0.6, 0.6 * last + 0.4, 0.6 * 2 / 3 + 0.4 * words_of_1]
    np.testing.assert_allclose(found.scores, [expected])


def test_reciprocal_ranks_add_up_as_in_the_paper():
    dense, words = leg((7, 0.9), (3, 0.8), (5, 0.1)), leg((3, 40.0), (9, 2.0))
    found = Fusion("rrf").rank({"dense": dense, "bm25": words}, NO_FEATURES, 4)
    expected = {3: 1 / 62 + 1 / 61, 7: 1 / 61, 9: 1 / 62, 5: 1 / 63}
    assert found.indices[0].tolist() == list(expected)
    np.testing.assert_allclose(found.scores[0], list(expected.values()))


def test_weights_are_a_softmax_of_a_querys_features_over_the_legs_searched():
    fusion = Fusion(coefficients={"bm25": (-1.0, 2.0, 0.0, 0.0), "lexical": (0.5, 0.0, 0.0, 0.0)})
    features = np.array([[1, 0.75, 1, 1], [1, 0, 0, 0]])
    weights = fusion.weights(("dense", "lexical", "bm25"), features)
    expected = np.exp([[0, 0], [0.5, 0.5], [0.5, -1]])
    np.testing.assert_allclose(np.stack(list(weights.values())), expected / expected.sum(0))
    alone = fusion.weights(("dense", "bm25"), features)
    np.testing.assert_allclose(alone["bm25"], 1 / (1 + np.exp([-0.5, 1])))


def test_a_leg_that_the_fusion_does_not_name_is_left_out():
    dense, words = leg((0, 2.0), (1, 1.0)), leg((5, 9.0))
    found = Fusion(legs=("dense", "multi_vector")).rank({"dense": dense, "bm25": words}, NO_FEATURES, 9)
    assert found.indices.tolist() == [[0, 1]]


def test_features_tell_a_query_of_the_corpus_from_one_of_another_language():
    bm25 = BM25(["настройка принтера в Linux", "печать документа на принтере", "сканер не отвечает"])
    queries = ["печать на принтере", "how to print a document", "Linux", "2024", ""]
    features = QueryFeatures(bm25)(queries, bm25.search(queries, 1)[1][:, 0])
    table = {q: dict(zip(FEATURES, row, strict=True)) for q, row in zip(queries, features, strict=True)}
    assert table["печать на принтере"] == {"constant": 1, "match": 1, "known": 1, "script": 1}
    assert table["how to print a document"]["match"] == table["how to print a document"]["known"] == 0
    assert table["how to print a document"]["script"] == pytest.approx(1 / 10)  # one Latin word, ten Cyrillic
    assert table["Linux"]["match"] == 1
    assert table["2024"] == {"constant": 1, "match": 0, "known": 0, "script": 1}
    assert table[""]["match"] == table[""]["script"] == 0
    default = Fusion().weights(("dense", "bm25"), features)["bm25"]
    assert default[0] > 0.5 > 0.1 > default[1]


def test_a_share_of_the_idf_is_matched_by_the_best_document():
    bm25 = BM25(["кот спит", "кот ест", "пёс спит"])
    (row,) = QueryFeatures(bm25)(["кот ест рыбу"], np.array([1]))
    idf = {having: np.log(1 + (3 - having + 0.5) / (having + 0.5)) for having in (0, 1, 2)}
    assert row[1] == pytest.approx((idf[2] + idf[1]) / (idf[2] + idf[1] + idf[0]))
    (row,) = QueryFeatures(bm25)(["кот ест рыбу"], np.array([-1]))
    assert (row[1], row[2] > 0) == (0, True)


@pytest.mark.parametrize(
    ("text", "script"),
    [("Как открыть файл config.json?", "CYRILLIC"), ("Hello, мир and all", "LATIN"), ("12", "")],
)
def test_the_main_script_is_that_of_most_words(text, script):
    assert main_script(text) == script


def test_the_file_holds_a_fusion_and_names_each_coefficient(tmp_path):
    fusion = Fusion(
        "convex", ("dense", "bm25"), {"bm25": (1.0, -2.0, 0.5, 0.0)}, 40, {"bm25": 0.5, "fitted": 0.7}
    )
    write_fusion(fusion, tmp_path)
    assert read_fusion(tmp_path) == fusion
    values = json.loads((tmp_path / FUSION).read_text())
    assert values["coefficients"]["bm25"] == dict(zip(FEATURES, (1.0, -2.0, 0.5, 0.0), strict=True))
    (tmp_path / "other").mkdir()
    copy_fusion(tmp_path, tmp_path / "other")
    assert read_fusion(tmp_path / "other") == fusion
    assert read_fusion(tmp_path / "none") is None
    assert set(DEFAULT_COEFFICIENTS) <= set(LEGS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: text.replace("0.5", "0.6"),
        lambda _: json.dumps({"format": 2, "method": "convex"}),
        lambda _: json.dumps(
            {"format": 1, "method": "convex", "legs": ["x"], "coefficients": {}, "queries": 0, "scores": {}}
        ),
        lambda _: "[]",
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, damage):
    write_fusion(Fusion(scores={"bm25": 0.5}), tmp_path)
    path = tmp_path / FUSION
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=FUSION):
        read_fusion(tmp_path)

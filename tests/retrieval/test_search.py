import numpy as np
import pytest

from embedline.errors import InputError
from embedline.retrieval.about import VectorSource, require_same_vectors
from embedline.retrieval.build import build_index
from embedline.retrieval.fusion import Candidates, Fusion
from embedline.retrieval.index import Index
from embedline.retrieval.query_features import QueryFeatures
from embedline.retrieval.search import Query, search_index

WORDS = ["пароль", "принтер", "счёт", "почта", "сеть", "ключ", "диск", "экран"]


def _texts(count):
    random = np.random.default_rng(3)
    return [" ".join(random.choice(WORDS, random.integers(1, 5))) + f" {n % 40}" for n in range(count)]


@pytest.fixture
def texts():
    return _texts(300)


@pytest.fixture(params=["kept", "in memory"])
def index(request, tmp_path, model, texts):
    ids = [str(n) for n in range(len(texts))]
    if request.param == "in memory":
        return Index.in_memory(ids, texts, model.block(texts))
    build_index(tmp_path / "index", ids, texts, model.block, model.source, dim=16)
    return Index.open(tmp_path / "index")


QUERY = "пароль от сети 7"


def _query(model):
    return Query.of(QUERY, model.vectors([QUERY]))


def _by_hand(model, texts):
    """Scores a head, one passage after the other."""
    query, passages = model.vectors([QUERY]), model.vectors(texts)
    terms, tokens = query.lexical[0], query.tokens[0]
    lexical = [sum(w * terms.get(t, 0.0) for t, w in passage.items()) for passage in passages.lexical]
    late = [
        (tokens @ part.astype(np.float16).astype(np.float32).T).max(1).mean() if len(part) else 0.0
        for part in passages.tokens
    ]
    return {"dense": passages.dense @ query.dense[0], "lexical": np.array(lexical), "late": np.array(late)}


def _order(scores, rows):
    return sorted(rows, key=lambda row: (-np.float32(scores[row]), row))


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_a_mode_finds_what_its_head_finds(index, model, texts, mode):
    index.tokens = None
    by_hand = _by_hand(model, texts)[mode]
    found = search_index(index, _query(model), 10, mode)
    possible = [row for row in range(len(texts)) if mode == "dense" or by_hand[row] > 0]
    assert found.rows.tolist() == _order(by_hand, possible)[:10]
    np.testing.assert_allclose(found.scores, by_hand[found.rows], atol=1e-5)


def test_the_multi_vector_head_orders_the_best_100(index, model, texts):
    by_hand = _by_hand(model, texts)
    found = search_index(index, _query(model), 100, "dense")
    hundred = _order(by_hand["dense"], range(len(texts)))[:100]
    np.testing.assert_allclose(found.scores, sorted(by_hand["late"][hundred])[::-1], atol=1e-5)
    assert set(found.rows.tolist()) == set(hundred)


def test_bm25_needs_no_vectors_of_the_query(index, texts):
    found = search_index(index, Query("принтер"), 5, "bm25")
    _, expected = index.bm25.search(["принтер"], 5)
    np.testing.assert_array_equal(found.rows, expected[0])
    assert len(search_index(index, Query("зебра"), 5, "bm25").rows) == 0


@pytest.mark.parametrize("method", ["convex", "rrf"])
def test_hybrid_fuses_all_legs(index, model, texts, method):
    by_hand = _by_hand(model, texts)
    words_scores, words_rows = index.bm25.search([QUERY], 100)
    legs = {"bm25": Candidates(words_scores, words_rows)}
    for head in ("dense", "lexical"):
        rows = [row for row in range(300) if head == "dense" or by_hand[head][row] > 0]
        rows = np.array(_order(by_hand[head], rows)[:100])
        missing = 100 - len(rows)
        legs[head] = Candidates(
            np.pad(by_hand[head][rows], (0, missing))[np.newaxis],
            np.pad(rows, (0, missing), constant_values=-1)[np.newaxis],
        )
    pool = sorted({row for leg in legs.values() for row in leg.indices[0] if row >= 0})
    rows = np.array(_order(by_hand["late"], pool)[:100])
    legs["multi_vector"] = Candidates(by_hand["late"][rows][np.newaxis], rows[np.newaxis])
    features = QueryFeatures(index.bm25)([QUERY], words_rows[:, 0])
    fusion = Fusion(method)
    expected = fusion.rank(legs, features, 10)
    found = search_index(index, _query(model), 10, "hybrid", fusion)
    np.testing.assert_allclose(found.scores, expected.scores[0], atol=1e-4)
    assert found.rows.tolist() == expected.indices[0].tolist()


def test_hybrid_of_a_dense_model_is_dense_and_bm25(dense_model, texts):
    index = Index.in_memory([str(n) for n in range(300)], texts, dense_model.block(texts))
    query = Query.of("зебра", dense_model.vectors(["зебра"]))
    dense = search_index(index, query, 10, "dense")
    hybrid = search_index(index, query, 10, "hybrid")
    assert hybrid.rows.tolist() == dense.rows.tolist(), "no word is known: dense decides"
    with pytest.raises(InputError, match="no lexical head"):
        search_index(index, query, 10, "lexical")


def test_a_query_is_cut_to_the_width_of_the_index(tmp_path, dense_model, texts):
    ids = [str(n) for n in range(300)]
    build_index(tmp_path / "index", ids, texts, dense_model.block, dense_model.source, dim=8)
    query = dense_model.vectors([QUERY]).dense[0]
    found = search_index(Index.open(tmp_path / "index"), Query(QUERY, query), 5)
    cut = dense_model.vectors(texts).dense[:, :8]
    scores = cut @ query[:8] / np.linalg.norm(cut, axis=1) / np.linalg.norm(query[:8])
    assert found.rows.tolist() == _order(scores, range(300))[:5]
    np.testing.assert_allclose(found.scores, scores[found.rows], atol=1e-5)


def test_another_models_vectors_are_refused_by_name():
    ours = VectorSource("runs/a/model", "aaaa", "passage: ", 512, ("dense",))
    require_same_vectors(ours, VectorSource("elsewhere", "aaaa", "passage: ", 512, ("dense",)), "docs.index")
    with pytest.raises(InputError) as refused:
        require_same_vectors(ours, VectorSource("runs/b", "bbbb", "passage: ", 512, ("dense",)), "docs.index")
    for part in ("docs.index", "runs/a/model (index version aaaa)", "runs/b", "index version bbbb"):
        assert part in str(refused.value)
    with pytest.raises(InputError, match="cut at 256 tokens after 'p: '"):
        require_same_vectors(ours, VectorSource("runs/b", "aaaa", "p: ", 256, ("dense",)), "docs.index")

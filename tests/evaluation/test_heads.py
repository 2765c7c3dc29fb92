"""Rankings and rows by head, against a slow formula."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.config.gate import Rule
from embedline.evaluation.compare import heads_table, main_table, markdown
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.heads import blocks, rank_by_head
from embedline.evaluation.local import score_bm25, score_model
from embedline.evaluation.reasons import sentence
from embedline.evaluation.sets import read_sets
from embedline.gate.model_scores import ModelScores
from embedline.gate.policy import check_rule
from embedline.models.head_vectors import HeadVectors
from embedline.retrieval.fusion import Fusion

WEIGHTS = {"dense": 1.0, "lexical": 0.3, "multi_vector": 0.7}


def made_up(count, seed):
    generator = np.random.default_rng(seed)

    def unit(*shape):
        rows = generator.normal(size=shape).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    terms = [
        {int(t): float(w) for t, w in zip(generator.choice(40, size), generator.random(size), strict=True)}
        for size in generator.integers(0, 9, count)
    ]
    return HeadVectors(unit(count, 6), terms, [unit(size, 5) for size in generator.integers(0, 7, count)])


def by_hand(queries, documents):
    """Scores a head, one pair after the other."""
    scores = {head: np.zeros((len(queries.dense), len(documents.dense))) for head in WEIGHTS}
    for q in range(len(queries.dense)):
        for d in range(len(documents.dense)):
            scores["dense"][q, d] = queries.dense[q] @ documents.dense[d]
            terms = queries.lexical[q].keys() & documents.lexical[d].keys()
            scores["lexical"][q, d] = sum(queries.lexical[q][t] * documents.lexical[d][t] for t in terms)
            if len(queries.tokens[q]) and len(documents.tokens[d]):
                dots = queries.tokens[q] @ documents.tokens[d].T
                scores["multi_vector"][q, d] = dots.max(1).mean()
    scores["hybrid"] = sum(WEIGHTS[head] * values for head, values in scores.items())
    return scores


@given(st.lists(st.integers(1, 50)), st.integers(1, 100))
def test_blocks_hold_all_documents_in_order_within_the_token_limit(lengths, most):
    found = list(blocks(lengths, most))
    assert [i for block in found for i in range(block.start, block.stop)] == list(range(len(lengths)))
    for block in found:
        assert sum(lengths[block]) <= most or block.stop - block.start == 1
    for one, other in pairwise(found):  # nor are they smaller than they need be
        assert sum(lengths[one]) + lengths[other.start] > most


@pytest.mark.parametrize("block", [1, 7, 100])
def test_rankings_are_exact_whatever_the_blocks(block):
    queries, documents = made_up(5, 1), made_up(30, 2)
    parts = (
        HeadVectors(*(field[at : at + block] for field in documents))
        for at in range(0, len(documents.dense), block)
    )
    found = rank_by_head(queries, parts, WEIGHTS, 10)
    expected = by_hand(queries, documents)
    assert set(found) == {"lexical", "multi_vector", "hybrid"}
    for head, (scores, ranking) in found.items():
        assert ranking.shape == (5, 10)
        best = np.sort(expected[head], axis=1)[:, ::-1][:, :10]
        np.testing.assert_allclose(np.take_along_axis(expected[head], ranking, 1), best, atol=1e-5)
        np.testing.assert_allclose(scores, best, atol=1e-5)
    lexical = found["lexical"].indices[0]
    ties = np.flatnonzero(expected["lexical"][0, lexical] == 0)
    assert (np.diff(lexical[ties]) > 0).all()  # equal scores: the lower index first


def test_a_missing_head_has_no_ranking_and_no_part_in_hybrid():
    queries, documents = made_up(3, 1)._replace(tokens=None), made_up(9, 2)._replace(tokens=None)
    found = rank_by_head(queries, [documents], WEIGHTS, 4)
    assert set(found) == {"lexical", "hybrid"}
    expected = by_hand(queries._replace(tokens=[[]] * 3), documents._replace(tokens=[[]] * 9))
    assert (found["hybrid"].indices[:, 0] == expected["hybrid"].argmax(1)).all()


class Letters:
    """Dense: nothing but noise. Lexical: letters. Token vectors: words."""

    def __init__(self):
        self.texts = []

    def encode(self, texts, **how):
        return self.encode_heads(texts, **how).dense

    def encode_heads(self, texts, *, prompt, max_length, batch_tokens):
        self.texts += [(text, max_length) for text in texts]
        dense = np.array([[1.0, len(text) % 3, len(text) % 5] for text in texts], np.float32)
        terms = [{ord(letter): 1.0 for letter in text} for text in texts]
        tokens = [np.stack([self._word(word) for word in text.split()]) for text in texts]
        return HeadVectors(dense / np.linalg.norm(dense, axis=1, keepdims=True), terms, tokens)

    def tokenize(self, texts, *, prompt, max_length):
        return [list(range(len(text.split()))) for text in texts]

    def _word(self, word):
        vector = np.random.default_rng(list(word.lower().encode())).normal(size=8).astype(np.float32)
        return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def scores(evaluation_folder):
    encoder = Letters()
    model = EvaluatedModel("candidate", "d", encoder, heads=tuple(WEIGHTS), hybrid=WEIGHTS, dims=(2,))
    scores = score_model(model, read_sets(evaluation_folder), resamples=20)
    assert len(encoder.texts) == len(set(encoder.texts))  # one encoding gives all heads
    return scores


def test_only_retrieval_sets_have_rows_of_heads_other_than_dense(scores):
    main = {(r.set, r.head, r.dim) for r in scores.rows if r.main}
    assert {head for name, head, _ in main if name != "Questions"} == {"dense"}
    of = {(head, dim) for name, head, dim in main if name == "Questions"}
    assert of == {("dense", 3), ("dense", 2), ("lexical", 0), ("multi_vector", 8), ("hybrid", 0)}
    values = {r.head: r.value for r in scores.rows if r.set == "Questions" and r.main}
    assert values["multi_vector"] > 0.8 > values["dense"]
    for head in ("lexical", "hybrid"):
        mean = np.mean([p.value for p in scores.per_query if p.head == head])
        assert mean == pytest.approx(values[head])


def test_hybrid_of_a_model_with_a_fusion_ranks_its_legs_and_bm25(evaluation_folder):
    sets = read_sets(evaluation_folder)
    words_alone = Fusion(legs=("bm25",))
    for heads in (("dense",), tuple(WEIGHTS)):
        values = {}
        for name, fusion in (("words", words_alone), ("default", Fusion()), ("rrf", Fusion("rrf"))):
            model = EvaluatedModel("candidate", "d", Letters(), heads=heads, hybrid=WEIGHTS, fusion=fusion)
            rows = [row for row in score_model(model, sets, resamples=0).rows if row.head == "hybrid"]
            assert {row.set for row in rows} == {"Questions"}
            assert {row.dim for row in rows} == {0}
            values[name] = {row.metric: row.value for row in rows}
        bm25 = {row.metric: row.value for row in score_bm25(sets, digest="b", resamples=0).rows}
        assert values["words"]["ndcg@10"] == pytest.approx(bm25["ndcg@10"])
        assert values["default"]["ndcg@10"] > 0.8


def test_a_rule_compares_hybrid_with_the_one_score_of_bm25(evaluation_folder):
    sets = read_sets(evaluation_folder)
    model = EvaluatedModel("candidate", "d", Letters(), fusion=Fusion())
    ours = ModelScores.of("candidate", score_model(model, sets, resamples=0).rows)
    bm25 = ModelScores.of("bm25", score_bm25(sets, digest="b", resamples=0).rows)
    gain = ours.find("Questions", head="hybrid").value - bm25.find("Questions").value
    for name, bar in (("*", gain - 0.001), ("Questions", gain + 0.001)):
        rule = Rule(set=name, head="hybrid", against="bm25", min_gain=bar)
        (reason,) = check_rule("r", rule, ours, bm25)
        assert (reason.passed, reason.other) == (bar < gain, bm25.find("Questions").value)
        assert "hybrid" in sentence(reason).en
    base = ModelScores.of("base", [])
    (reason,) = check_rule("r", Rule(set="*", head="hybrid", against="base", min_gain=0), ours, base)
    assert not reason.passed  # only BM25 has one score for all heads


def test_main_table_holds_the_dense_head_and_heads_table_the_others(scores):
    cell = main_table(scores.rows)["Questions", "ndcg@10"]["candidate"]
    assert (cell.head, cell.dim) == ("dense", 3)
    table = heads_table(scores.rows)
    assert list(table) == ["Questions"]
    assert list(table["Questions"]) == ["dense", "lexical", "multi_vector", "hybrid"]
    assert "| candidate | dense | lexical | multi_vector | hybrid |" in markdown(scores.rows)
    assert heads_table([row for row in scores.rows if row.head == "dense"]) == {}


def test_rules_check_the_dense_head_unless_they_name_another(scores):
    side = ModelScores.of("candidate", scores.rows)
    values = {head: side.find("Questions", head=head).value for head in (*WEIGHTS, "hybrid")}
    assert side.find("Questions").value == values["dense"]
    assert side.mean(side.sets(kind="retrieval")) == values["dense"]
    bar = (values["dense"] + values["multi_vector"]) / 2
    for head, passed in (("dense", False), ("multi_vector", True)):
        (reason,) = check_rule("r", Rule(set="Questions", min=bar, head=head), side, None)
        assert reason.passed is passed
        assert (head in sentence(reason).en) is (head != "dense")
    assert math.isfinite(values["hybrid"])

"""Queries that are documents, equal scores and absent documents, against mteb and pytrec_eval."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedline.config.data import EvaluationSet
from embedline.config.load import validate_config
from embedline.data.evaluation_sets import lay_out
from embedline.evaluation.compare import markdown
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.local import score_bm25, score_model
from embedline.evaluation.model_folder import score_folder
from embedline.evaluation.mteb_encoder import MtebEncoder
from embedline.evaluation.report import ReportData, render_report
from embedline.evaluation.sets import read_retrieval, read_sets
from embedline.models.head_vectors import HeadVectors

METRICS = {
    "ndcg@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "map@100": "map_cut_100",
}
TEXTS = ("печать не идёт", "экран разбит", "счёт за март", "пароль забыт", "сеть пропала")


class Axes:
    """One vector a text: equal texts tie exactly, and so do all that differ from the query."""

    def encode(self, texts, *, prompt, max_length, batch_tokens):
        return np.array([np.eye(len(TEXTS))[TEXTS.index(text)] for text in texts], np.float32)

    def encode_heads(self, texts, *, prompt, max_length, batch_tokens):
        dense = self.encode(texts, prompt=prompt, max_length=max_length, batch_tokens=batch_tokens)
        terms = [{int(row.argmax()): 1.0} for row in dense]
        return HeadVectors(dense, terms, [row[None, :] for row in dense])

    def tokenize(self, texts, *, prompt, max_length):
        return [text.split() for text in texts]


def axes(heads=("dense",)):
    weights = dict.fromkeys(heads, 1.0)
    return EvaluatedModel("candidate", "digest", Axes(), heads=heads, hybrid=weights)


def beir(folder, corpus, queries, qrels):
    """Write a set in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    lines = [
        f"{query}\t{document}\t{grade}" for query, row in qrels.items() for document, grade in row.items()
    ]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


def laid_out(folder, out, **rules):
    lay_out([EvaluationSet(path=str(folder), **rules)], Path(), out)
    return read_sets(out)


def values(scores, head="dense"):
    return {row.metric: row.value for row in scores.rows if row.head == head}


@pytest.fixture
def arguments(tmp_path):
    """Two texts of a debate, each the other's answer, and a query for each under its document's id."""
    corpus = {"a-pro": TEXTS[0], "b-con": TEXTS[1], "c-pro": TEXTS[2]}
    queries = {"a-pro": TEXTS[0], "b-con": TEXTS[1]}
    return beir(tmp_path / "Debates", corpus, queries, {"a-pro": {"c-pro": 1}, "b-con": {"c-pro": 1}})


def test_a_query_that_is_a_document_does_not_find_itself(arguments, tmp_path):
    """BM25 finds only the query itself, every other head ranks it first; 0.631 with it, 1.0 without it."""
    sets = laid_out(arguments, tmp_path / "out")
    model = axes(("dense", "lexical", "multi_vector"))
    ours = score_model(model, sets, resamples=0)
    assert sets[0].ignore_identical_ids
    for head in ("dense", "lexical", "multi_vector", "hybrid"):
        assert values(ours, head)["ndcg@10"] == 1.0
    assert all(row.ignore_identical_ids for row in ours.rows)
    kept = laid_out(arguments, tmp_path / "kept", ignore_identical_ids=False)
    with_itself = score_model(model, kept, resamples=0)
    for head in ("dense", "lexical", "multi_vector", "hybrid"):
        assert values(with_itself, head)["ndcg@10"] == pytest.approx(1 / np.log2(3))
    assert not any(row.ignore_identical_ids for row in with_itself.rows)


def test_bm25_obeys_the_same_rule(tmp_path):
    corpus = {"1": "сброс пароля", "2": "сброс пароля администратора"}
    folder = beir(tmp_path / "Set", corpus, {"1": "сброс пароля"}, {"1": {"2": 1}})
    found = score_bm25(laid_out(folder, tmp_path / "out"), digest="", resamples=0)
    assert values(found)["ndcg@10"] == 1.0


@pytest.mark.parametrize(
    ("queries", "qrels", "expected"),
    [
        ({"1": TEXTS[0], "2": TEXTS[1]}, {"1": {"3": 1}, "2": {"3": 1}}, True),
        ({"1": f"  {TEXTS[0]}\n", "2": TEXTS[3]}, {"1": {"3": 1}, "2": {"2": 1}}, False),  # half is not most
        ({"1": TEXTS[3], "2": TEXTS[4]}, {"1": {"1": 1}, "2": {"2": 1}}, False),  # both sides are numbered
        ({"1": TEXTS[0]}, {"1": {"1": 1}}, False),  # the set itself calls it the answer
        ({"q1": TEXTS[0]}, {"q1": {"1": 1}}, False),
    ],
)
def test_the_rule_is_on_where_ids_and_texts_coincide(tmp_path, queries, qrels, expected):
    corpus = {"1": TEXTS[0], "2": TEXTS[1], "3": TEXTS[2]}
    folder = beir(tmp_path / "Set", corpus, queries, qrels)
    assert laid_out(folder, tmp_path / "out")[0].ignore_identical_ids is expected
    for chosen in (True, False):
        out = tmp_path / str(chosen)
        assert laid_out(folder, out, ignore_identical_ids=chosen)[0].ignore_identical_ids is chosen


def test_the_rule_is_said_in_log_summary_and_report(arguments, tmp_path, caplog):
    sets = laid_out(arguments, tmp_path / "out")
    said = "queries whose results leave out the document with their id: 2"
    assert said in caplog.text
    assert said in json.loads((tmp_path / "out" / "sets.json").read_text())[0]["notes"]
    rows = score_model(axes(), sets, resamples=0).rows
    assert "The document with the query's id is no result in: Debates." in markdown(rows)
    page = render_report(ReportData(name="n", run="r", created="c", scores=rows))
    assert "исключён из результатов в наборах: Debates" in page


def test_absent_documents_count_as_not_found_when_asked(tmp_path):
    """As in the official ArguAna: the only answer of a query is in no corpus file."""
    folder = beir(
        tmp_path / "Set",
        {"d1": TEXTS[0], "d2": TEXTS[1]},
        {"q1": TEXTS[0], "q2": TEXTS[1]},
        {"q1": {"d1": 1, "gone": 1}, "q2": {"lost": 1, "junk": 0}},
    )
    sets = laid_out(folder, tmp_path / "out", missing_documents="not_found")
    found = values(score_model(axes(), sets, resamples=0))
    qrels = {"q1": {"d1": 1, "gone": 1}, "q2": {"lost": 1, "junk": 0}}
    run = {"q1": {"d1": 1.0, "d2": 0.0}, "q2": {"d1": 0.0, "d2": 1.0}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "recall_10"}).evaluate(run)
    assert found["ndcg@10"] == pytest.approx(np.mean([row["ndcg_cut_10"] for row in theirs.values()]))
    assert found["recall@10"] == pytest.approx(np.mean([row["recall_10"] for row in theirs.values()])) == 0.25


@st.composite
def tied_sets(draw):
    """A corpus of few texts under ids of any order, and queries of which some are documents."""
    ids = draw(st.lists(st.text("19aZя_-", min_size=1, max_size=3), min_size=3, max_size=30, unique=True))
    corpus = {key: draw(st.sampled_from(TEXTS)) for key in ids}
    asked = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=4, unique=True))
    queries = {key: corpus[key] for key in asked} | {"query": draw(st.sampled_from(TEXTS))}
    qrels = {}
    for query in queries:
        judged = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=5, unique=True))
        qrels[query] = {document: draw(st.integers(-1, 3)) for document in judged} | {judged[0]: 1}
    return corpus, queries, qrels


def ranked(corpus, queries):
    """Score all pairs as `Axes` does."""
    return {
        query: {document: float(text == other) for document, other in corpus.items()}
        for query, text in queries.items()
    }


def assert_trec_evals(ours, run, qrels):
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(METRICS.values())).evaluate(run)
    for name, their_name in METRICS.items():
        assert ours[name] == pytest.approx(np.mean([row[their_name] for row in theirs.values()]), abs=1e-6), (
            name
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tied_sets(), st.booleans())
def test_scores_of_tied_data_are_pytrec_evals(data, ignore):
    corpus, queries, qrels = data
    place = Path(tempfile.mkdtemp())
    try:
        folder = beir(place / "Set", corpus, queries, qrels)
        sets = laid_out(folder, place / "out", ignore_identical_ids=ignore)
        heads = ("dense", "lexical", "multi_vector")
        ours = score_model(axes(heads), sets, resamples=0)
    finally:
        shutil.rmtree(place)
    run = ranked(corpus, queries)
    if ignore:
        run = {query: {d: s for d, s in row.items() if d != query} for query, row in run.items()}
    for head in (*heads, "hybrid"):
        assert_trec_evals(values(ours, head), run, qrels)


@pytest.mark.parametrize("ignore", [True, False])
def test_a_hundred_documents_count_beside_the_querys_own(tmp_path, ignore):
    """In the order of trec_eval documents 149 to 50 are the best hundred; without the query's own 49 is."""
    corpus = {f"{number:03}": TEXTS[0] for number in range(150)}
    qrels = {"120": {"049": 1, "050": 2, "051": 1, "149": 1}}
    folder = beir(tmp_path / "Set", corpus, {"120": TEXTS[0]}, qrels)
    sets = laid_out(folder, tmp_path / "out", ignore_identical_ids=ignore)
    run = {"120": {document: 1.0 for document in corpus if not (ignore and document == "120")}}
    heads = ("dense", "lexical", "multi_vector")
    ours = score_model(axes(heads), sets, resamples=0)
    for head in (*heads, "hybrid"):
        assert_trec_evals(values(ours, head), run, qrels)
        assert values(ours, head)["recall@100"] == (1.0 if ignore else 0.75)
    assert_trec_evals(values(score_bm25(sets, digest="", resamples=0)), run, qrels)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tied_sets(), st.booleans())
def test_scores_of_tied_data_are_mtebs(data, ignore):
    import datasets
    import mteb

    corpus, queries, qrels = data
    place = Path(tempfile.mkdtemp())
    try:
        folder = beir(place / "Set", corpus, queries, qrels)
        sets = laid_out(folder, place / "out", ignore_identical_ids=ignore)
        ours = values(score_model(axes(), sets, resamples=0))
    finally:
        shutil.rmtree(place)
    task = mteb.get_task("ArguAna")
    task.ignore_identical_ids = ignore
    task.data_loaded = True
    tables = {
        name: datasets.Dataset.from_list([{"id": key, "text": text} for key, text in texts.items()])
        for name, texts in (("corpus", corpus), ("queries", queries))
    }
    task.dataset = {"default": {"test": {**tables, "relevant_docs": qrels, "top_ranked": None}}}
    theirs = task.evaluate(MtebEncoder(axes()), "test", encode_kwargs={"show_progress_bar": False})["default"]
    for name in ("ndcg@10", "mrr@10", "recall@10", "recall@100", "map@100"):
        assert ours[name] == pytest.approx(theirs[name.replace("@", "_at_")], abs=1e-5), name


def test_bm25_ties_are_in_trec_evals_order(tmp_path):
    corpus = dict.fromkeys(("10", "9", "b", "B", "я"), "одно и то же")
    queries = {f"q{key}": "то же" for key in corpus}
    qrels = {f"q{key}": {key: 1} for key in corpus}
    folder = beir(tmp_path / "Set", corpus, queries, qrels)
    ours = score_bm25(laid_out(folder, tmp_path / "out"), digest="", resamples=0)
    run = {query: dict.fromkeys(corpus, 1.0) for query in queries}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
    by_query = {row.query_id: row.value for row in ours.per_query}
    assert by_query == pytest.approx({query: row["ndcg_cut_10"] for query, row in theirs.items()})
    data = read_retrieval(tmp_path / "out" / "Set", ignore_identical_ids=True)
    assert data.depth == 101
    assert (data.own_document < -1).all()


def test_a_preset_is_scored_on_the_records_that_it_holds_out(tiny_model, tmp_path):
    """`evaluate --preset` makes the set of data.hold_out from the sources, as a run's ingest does."""
    rows = [{"query": f"вопрос {n}", "pos": [f"ответ на вопрос {n}"]} for n in range(30)]
    (tmp_path / "faq.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "other.jsonl").write_text(json.dumps({"query": "сторонний", "pos": ["чужой ответ"]}))
    values = {
        "sources": [{"path": "faq.jsonl"}, {"path": "other.jsonl"}],
        "hold_out": {"sources": ["faq"], "share": 0.4},
    }
    config = validate_config({"name": "held", "data": values}, where="test")
    preset = str(tmp_path / "preset.yaml")
    rows = score_folder(tiny_model(), [], config, preset, tmp_path / "runs")
    assert {(row.set, row.kind) for row in rows} == {("held_out", "retrieval"), ("unrelated texts", "spread")}
    assert 1 < rows[0].count < 30

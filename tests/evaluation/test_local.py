"""Scores on laid-out sets, with an encoder whose vectors are known."""

from dataclasses import replace

import numpy as np
import pytest

from embedline.config.model import Prompt
from embedline.errors import InputError
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.local import score_model
from embedline.evaluation.sets import read_retrieval, read_sets
from embedline.models.prompts import PromptTable
from embedline.vectors.unit import unit


class Letters:
    """Vectors of letter counts; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def encode(self, texts, *, prompt, max_length, batch_tokens):
        self.asked += [(prompt, max_length, text) for text in texts]
        alphabet = "абвгдежзиклмнопрстуabcdefghiklmnoprstu"
        return np.array([[1 + text.count(letter) for letter in alphabet] for text in texts], np.float32)


def model(**more):
    return EvaluatedModel("candidate", "digest", Letters(), query_length=16, document_length=32, **more)


COLUMNS = (
    "model digest set kind language revision runtime prompt dim head metric main value low high count "
    "ignore_identical_ids"
)


def test_rows_hold_what_the_gate_and_the_report_read(evaluation_folder):
    scores = score_model(model(dims=(8,)), read_sets(evaluation_folder), resamples=50, revision="r")
    for row in scores.rows:
        assert list(row.as_json()) == COLUMNS.split()
        assert row.low <= row.value + 1e-9 <= row.high + 2e-9 or row.count < 5
    main = {(r.set, r.dim): r.metric for r in scores.rows if r.main}
    metrics = {"Questions": "ndcg@10", "sts": "spearman", "pairs": "ap", "bitext": "f1"}
    assert main == {(name, dim): metric for name, metric in metrics.items() for dim in (38, 8)}
    ranked = [r for r in scores.rows if r.set == "Questions" and r.main and r.dim == 38]
    values = [p.value for p in scores.per_query if p.set == "Questions" and p.dim == 38]
    assert ranked[0].count == len(values) == 3  # the query that nothing is relevant to is left out
    assert ranked[0].value == pytest.approx(np.mean(values))
    assert next(r.count for r in scores.rows if r.set == "sts") == 3  # one pair has no score


def test_cut_vectors_score_as_if_they_were_encoded_so(evaluation_folder):
    class Cut(Letters):
        def encode(self, texts, **how):
            return super().encode(texts, **how)[:, :8]

    sets = read_sets(evaluation_folder)
    both = score_model(model(dims=(8,)), sets, resamples=0).rows
    narrow = EvaluatedModel("candidate", "digest", Cut(), query_length=16, document_length=32)
    expected = [row.value for row in score_model(narrow, sets, resamples=0).rows]
    assert [row.value for row in both if row.dim == 8] == pytest.approx(expected, abs=1e-6)


def test_prompts_and_lengths_follow_side_and_task(evaluation_folder):
    prompts = PromptTable(
        {"default": Prompt(query="q: ", document="d: "), "sts": Prompt(query="s: ", document="not this: ")}
    )
    asked = model(prompts=prompts)
    score_model(asked, read_sets(evaluation_folder), resamples=0)
    data = read_retrieval(evaluation_folder / "Questions")
    seen = set(asked.encoder.asked)
    assert {("q: ", 16, query) for query in data.queries} <= seen
    assert {("d: ", 32, document) for document in data.documents} <= seen
    assert ("s: ", 32, "monthly invoice download") in seen  # sentence pairs: one prompt for both sides
    assert ("q: ", 32, "monthly invoice download") in seen  # bitext has no entry of its own
    assert {prompt for prompt, _, _ in seen} == {"q: ", "d: ", "s: "}


def test_rows_hold_the_prompts_that_texts_were_encoded_with(evaluation_folder):
    """Pairs are not told apart, also where somebody gives them a task type that has sides."""
    prompts = PromptTable({"default": Prompt(query="q: ", document="d: ")})
    sets = [replace(each, task_type="short-long") for each in read_sets(evaluation_folder)]
    rows = score_model(model(prompts=prompts), sets, resamples=0).rows
    told = {row.set: row.prompt for row in rows}
    assert told == {"Questions": "'q: ' / 'd: '"} | dict.fromkeys(("sts", "pairs", "bitext"), "'q: '")


def test_a_text_is_encoded_once_for_a_prompt_and_length(evaluation_folder):
    asked = model()
    score_model(asked, read_sets(evaluation_folder), resamples=0)
    assert len(asked.encoder.asked) == len(set(asked.encoder.asked))
    assert len(asked.vectors(["новый", "новый", "как сбросить пароль"], "", 32)) == 3


def test_an_unknown_set_and_an_empty_one_are_refused(evaluation_folder, tmp_path, write_table):
    with pytest.raises(InputError, match="no evaluation set 'Nothing'"):
        read_sets(evaluation_folder, ["Nothing"])
    empty = tmp_path / "Empty"
    empty.mkdir()
    write_table(empty / "corpus.parquet", id=["d"], title=[""], text=["t"])
    write_table(empty / "queries.parquet", id=["q"], text=["t"])
    write_table(empty / "qrels.parquet", query_id=["q"], corpus_id=["d"], score=[0])
    with pytest.raises(InputError, match="no query has a relevant document"):
        read_retrieval(empty)


def test_unit_scales_to_length_one_and_keeps_zero():
    cut = unit(np.array([[3.0, 4.0, 9.0], [0.0, 0.0, 5.0]]), 2)
    np.testing.assert_allclose(cut, [[0.6, 0.8], [0, 0]])

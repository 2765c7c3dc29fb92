"""Evaluation text is found against a search for every query in every text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.data import EvaluationSet
from embedline.data.decontaminate import ContainedQueries, Protected
from embedline.data.evaluation_sets import lay_out
from embedline.data.normalize import comparison_form, normalize

LONG_QUERY = "Как настроить печать этикеток волны в модуле управления складом?"
ANSWER = "Откройте раздел «Типы этикеток» и выберите шаблон."


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Protected:
    root = tmp_path_factory.mktemp("eval")
    files = {
        "Docs/corpus.jsonl": [
            {"_id": "d", "title": "Этикетки", "text": ANSWER},
            {"_id": "e", "text": "Прочее"},
        ],
        "Docs/queries.jsonl": [{"_id": "q", "text": LONG_QUERY}, {"_id": "r", "text": "Ёлка?"}],
        "Pairs/test.jsonl": [{"sentence1": "Кот спит.", "sentence2": "Кошка дремлет.", "score": 4}],
    }
    for name, rows in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "Docs" / "qrels.tsv").write_text("q\td\t1\nq\te\t0\nr\td\t1\n")
    sets = [EvaluationSet(path="Docs"), EvaluationSet(path="Pairs", kind="sts")]  # type: ignore[call-arg]
    lay_out(sets, root, root / "out")
    return Protected.read(root / "out")


@pytest.mark.parametrize(
    ("query", "positive", "rule"),
    [
        (LONG_QUERY.upper(), "ответ", "evaluation_query"),
        ("вопрос", "«елка»", "evaluation_query"),
        ("кошка дремлет", "ответ", "evaluation_sentence"),
        ("вопрос", "откройте раздел типы этикеток и выберите шаблон", "evaluation_answer"),
        ("вопрос", f"Этикетки: {ANSWER}", "evaluation_answer"),
        ("вопрос", f"Раздел. {LONG_QUERY} Ответ ниже.", "evaluation_query_inside"),
        (f"FAQ: {LONG_QUERY}", "ответ", "evaluation_query_inside"),
        (ANSWER, "документ в роли вопроса", None),
        ("вопрос", "Прочее", None),
        ("вопрос", "На площади стоит елка", None),
        ("вопрос", LONG_QUERY.replace("волны", "волн"), None),
    ],
)
def test_a_record_that_holds_evaluation_text_is_named(
    protected: Protected, query: str, positive: str, rule: str | None
) -> None:
    assert protected.leak_in_record(comparison_form(query), [comparison_form(positive)]) == rule


def test_a_corpus_keeps_documents_but_no_passage_with_a_whole_query(protected: Protected) -> None:
    assert protected.leak_in_passage(comparison_form(ANSWER)) is None
    inside = comparison_form(f"{ANSWER} {LONG_QUERY}")
    assert protected.leak_in_passage(inside) == "evaluation_query_inside"


def test_evaluation_text_is_compared_as_training_text_is_after_tidying(tmp_path: Path) -> None:
    """Markup and references in a query do not hide it from records that were tidied."""
    rows = {
        "corpus": [{"_id": "d", "text": "<p>Закажите&nbsp;товар у Tom &amp; Jerry.</p>"}],
        "queries": [{"_id": "q", "text": "Как <b>купить</b> товар у Tom &amp; Jerry?"}],
    }
    (tmp_path / "Docs").mkdir()
    for name, lines in rows.items():
        (tmp_path / "Docs" / f"{name}.jsonl").write_text(json.dumps(lines[0]))
    (tmp_path / "Docs" / "qrels.tsv").write_text("q\td\t1\n")
    lay_out([EvaluationSet(path="Docs")], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    protected = Protected.read(tmp_path / "out")
    query, answer = (normalize(lines[0]["text"]) for lines in (rows["queries"], rows["corpus"]))
    assert "&amp;" not in query + answer
    assert protected.leak_in_record(comparison_form(query), ["ответ"]) == "evaluation_query"
    assert protected.leak_in_record("вопрос", [comparison_form(answer)]) == "evaluation_answer"


words = st.lists(st.sampled_from(["а", "б", "в", "г"]), max_size=14).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(words, max_size=6), words)
def test_contained_queries_are_those_that_brute_force_finds(queries: list[str], text: str) -> None:
    long_enough = [query for query in queries if len(query.split()) >= 8]
    expected = any(f" {query} " in f" {text} " for query in long_enough)
    found = ContainedQueries(queries).find(text)
    assert (found is not None) == expected
    assert found is None or f" {found} " in f" {text} "

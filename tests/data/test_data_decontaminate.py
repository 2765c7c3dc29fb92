"""Evaluation text is found whole, inside other text and nearly; ordinary rows of the same templates stay."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.data import CleanConfig, EvaluationSet
from embedline.data.clean import clean
from embedline.data.decontaminate import Protected, Tidied
from embedline.data.evaluation_index import COMMON_ROWS, EvaluationIndex, EvaluationText, Found
from embedline.data.evaluation_sets import lay_out
from embedline.data.normalize import normalize
from embedline.data.tables import PASSAGE_SCHEMA, RECORD_SCHEMA, RowWriter, read_rows

LONG_QUERY = "Как настроить печать этикеток волны в модуле управления складом?"
SHORT_QUERY = "Где найти номер полиса?"
ANSWER = "Откройте раздел «Типы этикеток» и выберите шаблон."


def written(root: Path, files: dict[str, list[dict[str, Any]]], qrels: dict[str, str]) -> Path:
    """Lay out a retrieval set `Docs` and, where there are files of it, a set of pairs."""
    for name, rows in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{query}\t{document}\t1\n" for query, document in qrels.items()]
    (root / "Docs" / "qrels.tsv").write_text("".join([*lines, f"{next(iter(qrels))}\te\t0\n"]))
    sets = [EvaluationSet(path="Docs")]  # type: ignore[call-arg]
    if "Pairs/test.jsonl" in files:
        sets.append(EvaluationSet(path="Pairs", kind="sts"))  # type: ignore[call-arg]
    lay_out(sets, root, root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Protected:
    files = {
        "Docs/corpus.jsonl": [
            {"_id": "d", "title": "Этикетки", "text": ANSWER},
            {"_id": "e", "text": "Прочее"},
        ],
        "Docs/queries.jsonl": [
            {"_id": "q", "text": LONG_QUERY},
            {"_id": "r", "text": "Ёлка?"},
            {"_id": "s", "text": SHORT_QUERY},
            {"_id": "t", "text": "Шаблоны в C++"},
        ],
        "Pairs/test.jsonl": [{"sentence1": "Кот спит.", "sentence2": "Кошка дремлет.", "score": 4}],
    }
    qrels = {"q": "d", "r": "d", "s": "d", "t": "d"}
    return Protected.read(written(tmp_path_factory.mktemp("eval"), files, qrels))


def found_in(protected: Protected, query: str, positive: str) -> str | None:
    """Return the rule of the leak that a record has, when it is the only row."""
    leak, phrases = protected.in_record(Tidied.of(normalize(query)), [Tidied.of(normalize(positive))])
    assert protected.index
    leak = leak or protected.index.leak_in(phrases)
    return leak and leak.rule


@pytest.mark.parametrize(
    ("query", "positive", "rule"),
    [
        (LONG_QUERY.upper(), "ответ", "evaluation_query"),
        ("вопрос", "«елка»", "evaluation_query"),
        ("кошка дремлет", "ответ", "evaluation_sentence"),
        ("вопрос", "откройте раздел типы этикеток и выберите шаблон", "evaluation_answer"),
        ("вопрос", f"Этикетки: {ANSWER}", "evaluation_answer"),
        ("вопрос", f"Раздел. {LONG_QUERY} Ответ ниже.", "evaluation_query_inside"),
        ("вопрос", f"Справка. {ANSWER} Готово.", "evaluation_answer_inside"),
        (f"FAQ: {LONG_QUERY}", "ответ", "evaluation_query_inside"),
        (f"Скажите, {SHORT_QUERY.lower()} Спасибо.", "ответ", "evaluation_query_inside"),
        (LONG_QUERY.replace("о", "ο").replace("в", "β"), "ответ", "evaluation_query"),  # Greek letters
        ("шаблоны в c++", "ответ", "evaluation_query"),
        ("Шаблоны в C#", "ответ", None),
        (ANSWER, "документ в роли вопроса", None),
        ("вопрос", "Прочее", None),
        ("вопрос", "На площади стоит елка", None),
        ("вопрос", "Потом кот спит. Долго", None),
        ("вопрос", LONG_QUERY.replace("волны", "волн"), None),
    ],
)
def test_a_record_that_holds_evaluation_text_is_named(
    protected: Protected, query: str, positive: str, rule: str | None
) -> None:
    assert found_in(protected, query, positive) == rule


def test_a_corpus_keeps_documents_but_no_passage_with_a_whole_query(protected: Protected) -> None:
    assert protected.in_passage(Tidied.of(ANSWER)) == Found()
    leak = protected.in_passage(Tidied.of(f"{ANSWER} {LONG_QUERY}")).leak
    assert leak == ("evaluation_query_inside", EvaluationText("query", "Docs", LONG_QUERY))


def test_evaluation_text_is_compared_as_training_text_is_after_tidying(tmp_path: Path) -> None:
    """Markup and references in a query do not hide it from records that were tidied."""
    answer, query = (
        "<p>Закажите&nbsp;товар у Tom &amp; Jerry.</p>",
        "Как <b>купить</b> товар у Tom &amp; Jerry?",
    )
    files = {
        "Docs/corpus.jsonl": [{"_id": "d", "text": answer}, {"_id": "e", "text": "Прочее"}],
        "Docs/queries.jsonl": [{"_id": "q", "text": query}],
    }
    protected = Protected.read(written(tmp_path, files, {"q": "d"}))
    assert found_in(protected, "как купить товар у Tom & Jerry", "ответ") == "evaluation_query"
    assert found_in(protected, "вопрос", "Закажите товар у Tom & Jerry") == "evaluation_answer"


PLANTED = 25
_RANDOM = random.Random(11)
_SYLLABLES = [first + second for first in "бвгдклмнпрст" for second in "аеиоуя"]
_WORDS = ["".join(_RANDOM.choices(_SYLLABLES, k=_RANDOM.randint(1, 4))) for _ in range(3000)]
_WORDS += ["с", "и", "в", "на", "по"] * 60


def made_up(count: int) -> str:
    return " ".join(_RANDOM.choices(_WORDS, k=count)).capitalize()


QUERIES = [made_up(_RANDOM.randint(4, 7)) + "?" for _ in range(PLANTED)]
# Each answer begins and ends as all texts of this company do.
HEAD, TAIL = (
    "Уважаемый клиент, сообщаем вам со ссылкой на договор, что",
    "Подробности вы найдёте на нашем сайте.",
)
ANSWERS = [
    f"{HEAD} {'. '.join(made_up(_RANDOM.randint(8, 14)) for _ in range(4))}. {TAIL}" for _ in range(PLANTED)
]


def _replaced(text: str) -> str:
    words = text.split()
    for place in _RANDOM.sample(range(len(words)), round(0.2 * len(words))):
        words[place] = _RANDOM.choice(_WORDS)
    return " ".join(words)


def _shuffled(text: str) -> str:
    sentences = text.split(". ")
    _RANDOM.shuffle(sentences)
    return ". ".join(sentences)


def _linked(text: str) -> str:
    return " ".join(
        f"[{w}](https://a.example/{i})" if i % 3 else f"**{w}**" for i, w in enumerate(text.split())
    )


def _tagged(text: str) -> str:
    return " ".join(f'<a href="/{i}">{w}</a>&nbsp;' if i % 3 else w for i, w in enumerate(text.split()))


def _embedded(text: str) -> str:
    return f"{made_up(25)}. {text} {made_up(25)}."


DISGUISES: dict[str, Callable[[str], str]] = {
    "a word appended": lambda text: f"{text} {_RANDOM.choice(_WORDS)}",
    "embedded": _embedded,
    "a fifth of the words replaced": _replaced,
    "sentences in another order": _shuffled,
    "latin с alone": lambda text: " ".join("c" if word == "с" else word for word in text.split()),
    "latin letters": lambda text: text.translate(str.maketrans("асеорухВК", "aceopyxBK")),
    "greek letters": lambda text: text.translate(str.maketrans("аеокрту", "αεοκρτυ")),
    "links": _linked,
    "tags and references": _tagged,
}


# A word of a short query replaced makes another query: it is found word for word only.
IN_QUERIES = [
    name for name in DISGUISES if name not in {"a fifth of the words replaced", "sentences in another order"}
]
ORDINARY = 2000

# No rule but those of evaluation text: words are made up, and some are half Greek.
CONFIG = CleanConfig(near_duplicates=False, languages=["xx"], max_rejected=1)  # type: ignore[call-arg]


def cleaned(folder: Path, rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Clean records of these pairs against QUERIES and ANSWERS; return the rejected rows."""
    files = {
        "Docs/corpus.jsonl": [{"_id": f"d{i}", "text": text} for i, text in enumerate(ANSWERS)]
        + [{"_id": "e", "text": f"{HEAD} {made_up(30)}. {TAIL}"}],
        "Docs/queries.jsonl": [{"_id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)],
    }
    qrels = {f"q{i}": f"d{i}" for i in range(PLANTED)}
    evaluation = written(folder, files, qrels)
    empty = {"positive_scores": None, "negative_scores": None, "score": None, "negatives": []}
    with RowWriter(folder / "records.parquet", RECORD_SCHEMA) as writer:
        for i, (query, positive) in enumerate(rows):
            row = {"id": str(i), "query": query, "positives": [positive], "source": "s", "language": "xx"}
            writer.write({**row, "task_type": "short-long", **empty})
    with RowWriter(folder / "corpus.parquet", PASSAGE_SCHEMA):
        pass
    clean(folder, evaluation, folder / "clean", CONFIG)
    return list(read_rows(folder / "clean" / "rejected.parquet"))


Rejected = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rejected(tmp_path_factory: pytest.TempPathFactory) -> Rejected:
    """The rejected rows of one cleaning by what was planted in them; "" names the ordinary ones."""
    planted = {
        f"answer, {name}": [(made_up(6), hide(t)) for t in ANSWERS] for name, hide in DISGUISES.items()
    }
    for name in IN_QUERIES:
        texts = [DISGUISES[name](text) for text in QUERIES]
        as_query, as_text = (
            [(t, made_up(20)) for t in texts[::2]],
            [(made_up(6), _embedded(t)) for t in texts[1::2]],
        )
        planted[f"query, {name}"] = as_query + as_text
    rows = [(made_up(6), f"{HEAD} {made_up(30)}. {TAIL}") for _ in range(ORDINARY)]
    names = [name for name, some in planted.items() for _ in some] + [""] * ORDINARY
    found: Rejected = {name: [] for name in names}
    some = [row for rows_of in planted.values() for row in rows_of]
    for row in cleaned(tmp_path_factory.mktemp("planted"), some + rows):
        found[names[int(row["id"])]].append(row)
    return found


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_answer_is_found(disguise: str, rejected: Rejected) -> None:
    rows = rejected[f"answer, {disguise}"]
    assert len(rows) >= PLANTED - 1
    assert {row["evaluation_text"] for row in rows} <= set(ANSWERS)
    assert {row["evaluation_set"] for row in rows} == {"Docs"}
    assert {row["rule"] for row in rows} <= {f"evaluation_answer{how}" for how in ("", "_inside", "_near")}


@pytest.mark.parametrize("disguise", IN_QUERIES)
def test_a_disguised_query_of_few_words_is_found_in_any_text(disguise: str, rejected: Rejected) -> None:
    rows = rejected[f"query, {disguise}"]
    assert len(rows) >= PLANTED - 1
    assert {row["evaluation_text"] for row in rows} <= set(QUERIES)
    assert {row["rule"] for row in rows} <= {"evaluation_query", "evaluation_query_inside"}


def test_ordinary_rows_of_the_same_templates_stay(rejected: Rejected) -> None:
    assert len(rejected[""]) <= ORDINARY / 1000


def test_a_short_query_that_many_rows_hold_is_a_stock_phrase(tmp_path: Path) -> None:
    common, rare = QUERIES[0], QUERIES[1]
    rows = [(made_up(6), f"{made_up(9)} {common} {made_up(9)}") for _ in range(COMMON_ROWS + 1)]
    rows += [(made_up(6), f"{made_up(9)} {rare} {made_up(9)}") for _ in range(COMMON_ROWS)]
    rejected = cleaned(tmp_path, rows)
    assert [row["evaluation_text"] for row in rejected] == [rare] * COMMON_ROWS


def test_the_summary_lists_evaluation_texts_with_rule_and_rows(tmp_path: Path) -> None:
    rows = [
        (QUERIES[2], made_up(9)),
        (QUERIES[2], made_up(9)),
        (made_up(6), ANSWERS[3]),
        (made_up(6), made_up(9)),
    ]
    cleaned(tmp_path, rows)
    funnel = clean(tmp_path, tmp_path / "out", tmp_path / "again", CONFIG)
    lines = funnel.markdown().splitlines()
    assert f"| evaluation_query | Docs | {QUERIES[2]} | 2 |" in lines
    assert any(line.startswith(f"| evaluation_answer | Docs | {ANSWERS[3][:80]}") for line in lines)


def test_thresholds_are_settings(tmp_path: Path) -> None:
    text = _RANDOM.choices(_WORDS, k=40)
    source = EvaluationText("answer", "Docs", " ".join(text))
    third = [*text[:14], *_RANDOM.choices(_WORDS, k=30)]
    for overlap, expected in ((0.3, "evaluation_answer_near"), (0.5, None)):
        index = EvaluationIndex([(text, source)], overlap=overlap)
        leak = index.leak_in(index.find(third, frozenset({"answer"})).phrases)
        assert (leak and leak.rule) == expected
    six = EvaluationIndex([(text[:6], source)], contained_words=6)
    assert six.find(third, frozenset({"answer"})).leak == ("evaluation_answer_inside", source)


words = st.lists(st.sampled_from(["а", "б", "в", "г"]), max_size=14)


@settings(max_examples=150, deadline=None)
@given(st.lists(words, max_size=6), words)
def test_queries_inside_a_text_are_those_that_brute_force_finds(
    queries: list[list[str]], text: list[str]
) -> None:
    index = EvaluationIndex([(q, EvaluationText("query", "s", " ".join(q))) for q in queries], overlap=1.0)
    leak, phrases = index.find(text, frozenset({"query"}))
    holds = {" ".join(q) for q in queries if len(q) >= 3 and f" {' '.join(q)} " in f" {' '.join(text)} "}
    long = {query for query in holds if len(query.split()) >= 8}
    if text and text in queries:
        assert leak == ("evaluation_query", EvaluationText("query", "s", " ".join(text)))
    elif long:
        assert leak in {("evaluation_query_inside", EvaluationText("query", "s", query)) for query in long}
    else:
        assert leak is None
        assert {phrase for phrase in phrases if isinstance(phrase, str)} == holds

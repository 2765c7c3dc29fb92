"""Every rule takes what it names and nothing else, and no row is lost between in, out and rejected."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.data import CleanConfig
from embedline.data import row_filters
from embedline.data.clean import clean
from embedline.data.funnel import Funnel
from embedline.data.normalize import normalize
from embedline.data.tables import PASSAGE_SCHEMA, RECORD_SCHEMA, RowWriter, read_rows
from embedline.data.text_rules import TEXT_RULES, Text
from embedline.errors import InputError, StepError

LONG = "Откройте раздел управления складом и выберите тип этикетки волны из списка доступных типов "
LONG *= 4
ENGLISH = "This is a plain English sentence about the way in which labels are printed by the system."


def record(query: str, *positives: str, **more: Any) -> dict[str, Any]:
    row = {
        "query": query,
        "positives": list(positives),
        "negatives": [],
        "source": "s",
        "task_type": "short-long",
    }
    return {**row, "language": "ru", "score": None, **more}


def dataset(
    folder: Path, records: list[dict[str, Any]], passages: list[dict[str, Any]] | None = None
) -> Path:
    folder.mkdir(parents=True)
    with RowWriter(folder / "records.parquet", RECORD_SCHEMA) as writer:
        for number, row in enumerate(records):
            writer.write({"id": str(number), **row})
    with RowWriter(folder / "corpus.parquet", PASSAGE_SCHEMA) as writer:
        for number, row in enumerate(passages or []):
            writer.write({"id": str(number), "title": "", "source": "c", "language": "ru", **row})
    return folder


def run(tmp_path: Path, records: list[dict[str, Any]], **config: Any) -> tuple[Funnel, dict[str, str | None]]:
    """The funnel, and the rule that each record (by its id) was rejected by, or None."""
    rules = CleanConfig(**{"max_rejected": 1, **config})
    funnel = clean(dataset(tmp_path / "in", records), None, tmp_path / "out", rules)
    kept = {row["id"]: None for row in read_rows(tmp_path / "out" / "records.parquet")}
    rejected = {row["id"]: row["rule"] for row in read_rows(tmp_path / "out" / "rejected.parquet")}
    assert not kept.keys() & rejected.keys()
    return funnel, {**kept, **rejected}


def test_each_rule_rejects_its_row(tmp_path: Path) -> None:
    rows = {
        None: record("Как напечатать?", LONG),
        "empty": record("<p> </p>", LONG),
        "query_too_short": record("а?", LONG),
        "positive_too_short": record("Короткий ответ?", "да"),
        "language": record("Какой язык?", ENGLISH),
        "exact_duplicate": record("как напечатать", LONG.upper()),
        "near_duplicate": record("Как напечатать?", LONG + "сейчас"),
    }
    funnel, rules = run(tmp_path, list(rows.values()))
    assert rules == {str(number): rule for number, rule in enumerate(rows)}
    assert funnel.rejected("records") == Counter(rule for rule in rows if rule)
    told = json.loads((tmp_path / "out" / "funnel.json").read_text())["records"]["s"]
    assert told["rows_in"] == told["rows_out"] + sum(told["rejected"].values()) == 7
    assert "| **total** | 7 |" in funnel.markdown()
    assert funnel.metrics()["records.rejected.language"] == 1


def test_a_new_text_rule_is_a_function_in_one_tuple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mentions_price(text: Text, config: CleanConfig) -> bool:
        return "цена" in text.text

    monkeypatch.setattr(row_filters, "TEXT_RULES", (*TEXT_RULES, mentions_price))
    rows = [record("Какая цена?", LONG), record("Как напечатать?", f"{LONG} цена", LONG)]
    funnel, rules = run(tmp_path, rows)
    assert rules == {"0": "mentions_price", "1": None}
    assert funnel.metrics()["records.rejected.mentions_price"] == 1
    assert "| mentions_price |" in funnel.markdown()
    (row,) = read_rows(tmp_path / "out" / "records.parquet")
    assert row["positives"] == [LONG.strip()]


def test_two_questions_of_a_passage_and_a_turned_pair_are_no_duplicates(tmp_path: Path) -> None:
    rows = [record("Как напечатать?", LONG), record("Где этикетки?", LONG), record(LONG, "Как напечатать?")]
    funnel, _ = run(tmp_path, rows)
    assert funnel.rows_out("records") == 3


def test_positives_and_negatives_are_tidied_inside_a_record(tmp_path: Path) -> None:
    negatives = [LONG.upper(), "как напечатать", "<b>Другой</b>  раздел", "другой раздел", " ", "третий"]
    funnel, _ = run(tmp_path, [record("Как напечатать?", LONG, "да", ENGLISH, negatives=negatives)])
    (row,) = read_rows(tmp_path / "out" / "records.parquet")
    assert row["positives"] == [LONG.strip()]
    assert row["negatives"] == ["Другой раздел", "третий"]
    changed = funnel.counts("records", "s").changed
    assert (changed["positives_removed"], changed["negatives_removed"]) == (2, 4)


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    funnel, _ = run(tmp_path, [record("Как напечатать?", LONG)], max_chars=100)
    (row,) = read_rows(tmp_path / "out" / "records.parquet")
    assert row["positives"][0] == LONG[:100].strip()
    assert funnel.counts("records", "s").changed["texts_cut"] == 1


def test_other_languages_are_rejected(tmp_path: Path) -> None:
    rows = [
        record("Как напечатать?", LONG),
        record("How to print the labels of a wave?", ENGLISH, language="en"),
        record("How to print the labels of a wave?", LONG, language="en-ru"),
    ]
    _, rules = run(tmp_path, rows, languages=["ru"])
    assert rules == {"0": None, "1": "language", "2": "language"}


def test_a_row_is_the_duplicate_of_one_that_serves_the_same_stages(tmp_path: Path) -> None:
    """Weak pairs do not take the rows of the stage that fine-tunes, nor the other way round."""
    stages = {"weak": ["unsupervised"], "fine": ["supervised"], "all": ["unsupervised", "supervised"]}
    question, other = "Как напечатать?", "Где этикетки?"
    rows = [
        record(question, LONG, source="weak"),
        record(question, LONG, source="fine", negatives=["Другой раздел."]),
        record(question, LONG, source="all"),
        record(question, LONG, source="weak"),
        record(question, f"{LONG} сейчас", source="fine"),
        record(other, LONG, source="weak"),
        record(other, f"{LONG} сейчас", source="all"),
        record(other, f"{LONG} потом", source="fine"),
    ]
    folder = dataset(tmp_path / "in", rows)
    clean(folder, None, tmp_path / "out", CleanConfig(), stages=stages)
    rules = {row["id"]: row["rule"] for row in read_rows(tmp_path / "out" / "rejected.parquet")}
    exact, near = dict.fromkeys("23", "exact_duplicate"), dict.fromkeys("47", "near_duplicate")
    assert rules == {**exact, **near}


def test_a_scored_pair_is_no_duplicate_of_the_same_pair_without_a_score(tmp_path: Path) -> None:
    rows = [record("Кот спит.", LONG, score=score) for score in (None, 4.5, None, 4.5)]
    rows += [record("Кот спит.", LONG + "сейчас", score=score) for score in (None, 4.5)]
    _, rules = run(tmp_path, rows)
    exact, near = "exact_duplicate", "near_duplicate"
    assert rules == {"0": None, "1": None, "2": exact, "3": exact, "4": near, "5": near}


def test_rules_can_be_switched_off(tmp_path: Path) -> None:
    rows = [record("Как напечатать?", LONG)] * 3
    funnel, _ = run(tmp_path, rows, exact_duplicates=False, near_duplicates=False)
    assert funnel.rows_out("records") == 3


def test_the_teacher_filters_its_languages_and_any_positive_keeps_a_record(
    tmp_path: Path,
) -> None:
    def teacher(texts: list[str], *_: str) -> np.ndarray:
        return np.array([[t.count("print"), t.count("save"), 0.1] for t in texts], dtype=np.float32)

    prints, saves = f"{ENGLISH} print", f"{ENGLISH} save".replace("printed", "kept")
    rows = [
        record("how to print", prints, language="en"),
        record("how to save", saves, language="en"),
        record("then how to print", saves, language="en"),
        record("and how to print", saves, prints, language="en"),
        record("как напечатать", LONG, language="ru"),
    ]
    config = CleanConfig(consistency_top_k=1, near_duplicates=False)  # type: ignore[call-arg]
    funnel = clean(dataset(tmp_path / "in", rows), None, tmp_path / "out", config, teacher, ["en"])
    assert [row["id"] for row in read_rows(tmp_path / "out" / "rejected.parquet")] == ["2"]
    assert funnel.rejected("records") == {"inconsistent": 1}


def test_passages_are_cleaned_by_the_same_rules(tmp_path: Path) -> None:
    texts = [LONG, LONG.upper(), LONG + "сейчас", "мало", "<br>", ENGLISH]
    folder = dataset(tmp_path / "in", [record("Как напечатать?", LONG)], [{"text": text} for text in texts])
    funnel = clean(folder, None, tmp_path / "out", CleanConfig())
    assert [row["text"] for row in read_rows(tmp_path / "out" / "corpus.parquet")] == [LONG.strip()]
    rules = [row["rule"] for row in read_rows(tmp_path / "out" / "rejected_corpus.parquet")]
    assert rules == ["exact_duplicate", "too_short", "empty", "language", "near_duplicate"]
    assert funnel.rows_in("corpus") == funnel.rows_out("corpus") + 5


def test_nothing_left_is_an_error_that_names_the_rules(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no record of 2 is left .*language 1, positive_too_short 1"):
        run(tmp_path, [record("Какой язык?", ENGLISH), record("Короткий ответ?", "да")])


def test_nothing_left_by_the_teacher_blames_the_teacher_first(tmp_path: Path) -> None:
    def astray(texts: list[str], *_: str) -> np.ndarray:
        """Every query is nearest to the positive after its own."""
        numbers = [(int(text.split()[-1]) + text.startswith("how")) % 6 for text in texts]
        return np.eye(6, dtype=np.float32)[numbers]

    rows = [record(f"how to print {i}", f"{ENGLISH} {i}", language="en") for i in range(6)]
    config = CleanConfig(consistency_top_k=1, near_duplicates=False)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"^teacher\.model: .*inconsistent 6.*check its tokenizer"):
        clean(dataset(tmp_path / "in", rows), None, tmp_path / "out", config, astray, ["en"])


def test_a_lost_row_raises() -> None:
    funnel = Funnel()
    funnel.counts("records", "s").rows_in = 2
    funnel.counts("records", "s").count(None)
    with pytest.raises(StepError, match="rows were lost"):
        funnel.assert_conserved()


texts = st.sampled_from(
    ["", " ", "да", "Как?", LONG, LONG + "ещё", ENGLISH, "<p>Как?</p>", "Как напечатать?"]
)
rows = st.builds(
    lambda query, positives, negatives, source: record(query, *positives, negatives=negatives, source=source),
    texts,
    st.lists(texts, max_size=3),
    st.lists(texts, max_size=2),
    st.sampled_from(["a", "b"]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(rows, max_size=12))
def test_rows_in_are_rows_out_and_rows_rejected(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    funnel, rules = run(folder, [*drawn, record("Где лежит документация?", "На странице проекта.")])
    assert sorted(rules) == sorted(map(str, range(len(drawn) + 1)))
    assert funnel.rows_in("records") == len(drawn) + 1
    for row in read_rows(folder / "out" / "records.parquet"):
        assert row["positives"]
        assert not set(row["positives"]) & set(row["negatives"])
        assert all(normalize(text) == text for text in [row["query"], *row["positives"], *row["negatives"]])


def test_a_teachers_scores_stay_with_their_texts(tmp_path: Path) -> None:
    """Of what is tidied, removed or repeated, too."""
    rows = [
        record(
            "Как напечатать?",
            "да",
            LONG,
            LONG.upper(),
            negatives=["", "Нет бумаги.", LONG, "нет  бумаги.", "Нет тонера."],
            positive_scores=[0.1, 0.9, 0.8],
            negative_scores=[-1.0, 0.2, 0.3, 0.4, 0.5],
        ),
        record("Где бумага?", f"{LONG} Бумага лежит в шкафу.", negatives=["Нет."]),
    ]
    run(tmp_path, rows, near_duplicates=False)
    one, other = read_rows(tmp_path / "out" / "records.parquet")
    said = dict(zip(one["negatives"], one["negative_scores"], strict=True))
    assert said == {"Нет бумаги.": 0.2, "Нет тонера.": 0.5}
    assert dict(zip(one["positives"], one["positive_scores"], strict=True))[LONG.strip()] == 0.9
    assert len(one["positives"]) == len(one["positive_scores"]) == 2
    assert (other["positive_scores"], other["negative_scores"]) == (None, None)


def test_a_loss_of_more_than_half_the_records_is_refused(tmp_path: Path) -> None:
    records = [record("Как напечатать?", f"Откройте раздел {n} и нажмите кнопку.") for n in "абв"]
    records += [record("<p> </p>", LONG), record("<b></b>", LONG), record("<i></i>", LONG)]
    half, _ = run(tmp_path / "half", records, near_duplicates=False, max_rejected=0.5)
    assert half.rows_out("records") == 3
    records += [record("<u></u>", LONG)]
    with pytest.raises(InputError, match=r"clean.max_rejected: 0.5: only 3 records of 7 are left .*empty 4"):
        run(tmp_path / "more", records, near_duplicates=False, max_rejected=0.5)


def test_code_and_marks_keep_rows_and_negatives_apart(tmp_path: Path) -> None:
    pairs = [("C++", "C#"), ("<=", ">="), ("-5", "5"), ("git branch -d", "git branch -D"), ("जाता", "जाती")]
    rows = [
        record(f"Что такое {one}?", f"{one}: {LONG}", negatives=[f"{other}: {LONG}"])
        for pair in pairs
        for one, other in (pair, pair[::-1])
    ]
    _, rules = run(tmp_path, rows, near_duplicates=False)
    assert set(rules.values()) == {None}
    kept = list(read_rows(tmp_path / "out" / "records.parquet"))
    assert [len(row["negatives"]) for row in kept] == [1] * len(rows)

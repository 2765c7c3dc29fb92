"""Comparison keeps letters, marks, numbers and code apart, in every script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedline.words import comparison_form, words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("वह घर जाता है", "वह घर जाती है"),
        ("किताब", "किताबें"),
        ("กินข้าว", "กันข้าว"),
        ("בּ", "ב"),
        ("Язык C++", "Язык C#"),
        ("a <= b", "a >= b"),
        ("-5 градусов", "5 градусов"),
        ("−5", "5"),
        ("git branch -d", "git branch -D"),
        ("tar --list", "tar list"),
        ("скидка 5%", "скидка 5"),
        ("версия 1.5", "версия 1 5"),
        ("в 10:30", "в 10 30"),
        ("x² + 1", "x2 + 1"),
        ("½ литра", "1⁄2 литра"),
        ("if (!ready)", "if (ready)"),
        ("f(x)", "f x"),
        ("a[0] пуст", "a{0} пуст"),
        ("оператор []", "оператор {}"),
        ("$x", "x"),
        (r"\d", r"\D"),
        (".NET", "NET"),
        ("std::map", "std map"),
        ("Хорошо 👍", "Хорошо 👎"),
        ("100 €", "100 $"),
    ],
)
def test_texts_of_another_meaning_have_another_form(one: str, other: str) -> None:
    assert comparison_form(one) != comparison_form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("«Ёж», — сказал он…", "еж сказал он"),
        ("(например, так)", "Например так!"),
        ("Ｆｕｌｌ ﬁle", "full file"),
        ("E-mail", "e mail"),
        ("STRASSE", "straße"),
        ("уда\u0301рный за\u00adголовок", "ударный заголовок"),
        ("Windows™", "windows"),
        ("Вызовите `f(x)`.", "вызовите f(x)"),
        ("Язык C++?", "язык C++"),
        ("−5", "-5"),
    ],
)
def test_texts_of_the_same_words_have_the_same_form(one: str, other: str) -> None:
    assert comparison_form(one) == comparison_form(other)


def test_the_form_of_what_has_no_word_is_the_text() -> None:
    assert comparison_form(" <= > ") == "<=>"
    assert comparison_form("_") == "_"


pieces = st.sampled_from(
    ["C++", "-5", "f(x)", "«", "».", "ё", "е\u0301", "İ", "ß", "x²", "กิ", "हि", "1.5", "--", "_a"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces | st.text(max_size=4), max_size=6).map("".join) | st.text())
@example("ǰ ΐ \u0345")
def test_the_form_of_a_form_is_itself(text: str) -> None:
    form = comparison_form(text)
    assert comparison_form(form) == form


# Each is a letter, a mark or a number of its own: case, ё and compatibility forms are left out.
DISTINCT = "абвгджйabdfg0123456789४५कखगाीुूेैกขคิีึืุู世界地图אבגدذ"
assert all(unicodedata.category(character)[0] in "LMN" for character in DISTINCT)
strings = st.text(st.sampled_from(DISTINCT), min_size=1, max_size=8)


@settings(max_examples=500, deadline=None)
@given(st.lists(strings, min_size=1, max_size=4), st.lists(strings, min_size=1, max_size=4))
def test_texts_that_differ_in_a_letter_mark_or_number_differ_in_form(
    one: list[str], other: list[str]
) -> None:
    forms = comparison_form(" ".join(one)), comparison_form(" ".join(other))
    assert (forms[0] == forms[1]) == (one == other)


@settings(max_examples=300, deadline=None)
@given(st.lists(strings, min_size=1, max_size=6), st.data())
def test_prose_punctuation_and_case_do_not_count(found: list[str], data: st.DataObject) -> None:
    marks = st.sampled_from(["", ",", ".", "?", "!", "…", "»", ")"])
    text = " ".join(word + data.draw(marks) for word in found)
    assert comparison_form(text.upper()) == comparison_form(" ".join(found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में किताबें", ["हिन्दी", "में", "किताबें"]),
        ("世界地图 map", ["世界", "界地", "地图", "map"]),
        ("ไทย", ["ไท", "ทย"]),
        ("図", ["図"]),
        ("v2版本", ["v2", "版本"]),
        ("كِتاب", ["كِتاب"]),
        ("snake_case, слово-слово", ["snake_case", "слово", "слово"]),
    ],
)
def test_words_of_every_script_stay_whole_or_come_in_pairs(text: str, expected: list[str]) -> None:
    assert words(text) == expected

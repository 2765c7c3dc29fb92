"""Markup goes, meaning stays; normalising twice is normalising once."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedline.data.language import guess, is_written_in, may_be
from embedline.data.normalize import normalize
from embedline.words import comparison_form

PIECES = ["<b>", "</b>", "<br>", "<p class='x'>", "<script>", "</script>", "&amp;", "lt;", "&lt;", "&#60;"]
PIECES += [
    "<!--",
    "-->",
    "`",
    "```",
    "<T>",
    "a < b",
    "&",
    "<?php ?>",
    "\u00ad",
    "\r\n",
    "\t",
    "  ",
    "\n\n\n",
    "й",
]
ragged = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=20).map("".join)


@settings(max_examples=500, deadline=None)
@given(ragged, st.none() | st.integers(1, 40))
def test_normalising_twice_is_normalising_once(text: str, limit: int | None) -> None:
    once = normalize(text, limit)
    assert normalize(once, limit) == once
    assert unicodedata.is_normalized("NFC", once)
    assert limit is None or len(once) <= limit


@pytest.mark.parametrize(
    "text",
    [
        "if (a < b && c > d) return;",
        "if (a<b && c>d) return;",
        "List<int> и Map<String, List<T>>",
        "std::vector<a> x;",
        "<?php echo $a->b; ?>",
        "#include <iostream>",
        "Элемент `<br>` и `&amp;` в коде",
        "```\n<p>код</p>\n```",
        "?x=1&parameter=2&copy=3",
        "AT&T, R&D; 5 <- 3",
        "x² ½ ﬁ ①",
        "<MyTag/> и </MyTag>",
    ],
)
def test_technical_text_stays_as_it_is(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Нажмите <b>Сохранить</b>.</p><p>Готово</p>", "Нажмите Сохранить.\n\nГотово"),
        ("строка<br/>другая", "строка\nдругая"),
        ("<td>а</td><td>б</td>", "а б"),
        ("<a href=\"x?a>b\" title='y'>ссылка</a>", "ссылка"),
        ("до<!-- <b>скрыто</b> -->после", "допосле"),
        ("<script>if (a < b) {}</script>текст<style>p {}</style>", "текст"),
        ("Tom &amp; Jerry &lt;x&gt; &#1071; &nbsp;ok", "Tom & Jerry <x> Я ok"),
        ("за\u00adголо\u200bвок\ufeff", "заголовок"),
        ("и\u0306", "й"),
        ("a\u00a0\u2003b\t c \r\n\r\n\r\n\r\n d\x00", "a b c\n\nd"),
    ],
)
def test_markup_and_extra_white_space_are_removed(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_a_long_text_is_cut() -> None:
    assert normalize("аб " * 100, 10) == "аб аб аб а"


def test_comparison_form_ignores_case_yo_width_and_punctuation() -> None:
    assert comparison_form("  «Ёлка»,\nэто: ＡＢＣ_1!") == "елка это abc 1"
    assert comparison_form("++ $x") == "++ $x"
    assert comparison_form("за\u00adголо\u200bвок уда\u0301рный е\u0308ж") == "заголовок ударный еж"


def test_the_comparison_form_reads_lookalikes_in_a_word_of_two_alphabets() -> None:
    latin_in_it = "Пp\u043ev\u0435pк\u0430".replace("v", "в")  # р and the like are Latin
    assert comparison_form(latin_in_it) == comparison_form("Проверка") == "проверка"
    assert comparison_form("COM cop") == "com cop"  # a word that is all Latin stays


def test_the_comparison_form_of_what_has_no_word() -> None:
    assert comparison_form(" <= > ") == "<=>"


VISIBLE = {"Lu", "Ll", "Nd", "Pd", "Ps", "Po", "Sm", "Sc"}


@settings(max_examples=200, deadline=None)
@given(st.text())
@example("\xad")  # a soft hyphen is nothing to read
@example("\u0301")
def test_the_comparison_form_of_a_comparison_form_is_itself_for_words(text: str) -> None:
    form = comparison_form(text)
    assert form == form.strip()
    assert not form or not text.isspace()
    assert form or not any(unicodedata.category(letter) in VISIBLE for letter in text)


RUSSIAN = "Метод OrganizationService.RetrieveMultiple возвращает EntityCollection из таблицы msdyn_workorder."
ENGLISH = "The method returns a collection of entities from the table, sorted by the name of the column."


def test_language_is_decided_by_script() -> None:
    assert is_written_in(RUSSIAN, "ru")
    assert not is_written_in(ENGLISH, "ru")
    assert is_written_in(ENGLISH, "en")
    assert not is_written_in(RUSSIAN.replace("OrganizationService.RetrieveMultiple", ""), "en")
    assert (guess(RUSSIAN), guess(ENGLISH), guess("123 + 4")) == ("ru", "en", "")


@pytest.mark.parametrize(
    "text",
    [
        "Visual Studio",
        "Microsoft.VisualStudio.TestTools.UnitTesting.Assert.AreEqual",
        "RADIUS_ADSL_CAP\nRADIUS_ADSL_DMT\nRADIUS_IDSL\nRADIUS_ETHERNET\nRADIUS_XDSL\nRADIUS_CABLE",
        "$x = null; NULL true true false false\nvar $x; NULL true true false false $y = 1; $z[0] = $x->y();",
        "object Объект Collator. strength Strength to set. Допустимые значения: Collator::PRIMARY",
        "42",
    ],
)
def test_product_names_and_code_stay_in_a_russian_source(text: str) -> None:
    assert is_written_in(text, "ru")


UKRAINIAN = "Цей метод повертає колекцію сутностей із таблиці, відсортовану за іменем стовпця."
BULGARIAN = "Този метод връща колекция от обекти, подредени по името на колоната, ако тя е посочена вътре."
KAZAKH = "Бұл әдіс кестедегі нысандар жинағын қайтарады, егер ол көрсетілген болса."
SERBIAN = "Овај метод враћа колекцију објеката из табеле, поређану према називу колоне."


@pytest.mark.parametrize("text", [UKRAINIAN, BULGARIAN, KAZAKH, SERBIAN])
def test_other_languages_in_cyrillic_are_not_russian(text: str) -> None:
    assert not is_written_in(text, "ru")
    assert guess(text) == ""
    assert not is_written_in(text, "en")


@pytest.mark.parametrize(
    "text",
    [
        "Объект Pool является контейнером для объектов Worker, управления ими и объединения объёмов.",
        "Изъятие объекта и подъезд к объекту.",
        "Онъ былъ въ домѣ, гдѣ жилъ старый докторъ, и мы видѣли его въ окнѣ.",
        "Шевченко (укр. Тарас Григорович Шевченко) — поэт; его имя носит улица Київська в Москве и площадь.",
    ],
)
def test_russian_with_hard_signs_or_a_foreign_name_is_russian(text: str) -> None:
    assert is_written_in(text, "ru")


def test_other_scripts_fit_no_language_and_cross_lingual_rows_fit_either() -> None:
    chinese = "这是一个关于如何保存文件的说明文档，请按照以下步骤操作。"
    assert not is_written_in(chinese, "ru")
    assert not is_written_in(chinese, "en")
    assert may_be(RUSSIAN, "en-ru")
    assert may_be(ENGLISH, "en-ru")
    assert not may_be(chinese, "en-ru")
    assert may_be(chinese, "zh")

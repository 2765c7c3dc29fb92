from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from embedline.errors import InputError
from embedline.models.tokenizer import padded_vocabulary, train_tokenizer

CORPUS = ["Как настроить почту на телефоне?", "ёлка и ёж", "printer driver update"] * 20
RUSSIAN = st.text("абвгдеёжзийклмнопрстуфхцчшщъыьэюя АБВЁЯ .,!?-()", max_size=60)


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, 320)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer(text)["input_ids"]
    return found


@pytest.mark.parametrize("vocabulary", [261, 300, 320, 100_000])
def test_the_vocabulary_is_bounded(vocabulary: int) -> None:
    assert len(train_tokenizer(CORPUS, vocabulary)) <= vocabulary


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(InputError, match="64 tokens do not hold 256 bytes and 5 special tokens"):
        train_tokenizer(CORPUS, 64)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="[")))
def test_no_character_is_unknown(trained: PreTrainedTokenizerFast, text: str) -> None:
    found = ids(trained, text)
    assert trained.unk_token_id not in found
    assert (found[0], found[-1]) == (trained.cls_token_id, trained.sep_token_id)
    assert len(found) > 2 or not any(character.isalnum() for character in text)


@given(text=RUSSIAN)
def test_case_and_yo_are_folded(trained: PreTrainedTokenizerFast, text: str) -> None:
    folded = ids(trained, text.lower().replace("ё", "е"))
    assert ids(trained, text) == folded
    assert ids(trained, text.upper()) == folded


def test_composed_and_decomposed_letters_are_one(trained: PreTrainedTokenizerFast) -> None:
    assert ids(trained, "й\u0451") == ids(trained, "\u0438\u0306\u0435\u0308")


def test_case_can_be_kept() -> None:
    kept = train_tokenizer(CORPUS, 320, lowercase=False)
    assert ids(kept, "Ёлка") != ids(kept, "елка")


@given(text=RUSSIAN)
def test_no_letter_is_lost(trained: PreTrainedTokenizerFast, text: str) -> None:
    decoded = trained.decode(ids(trained, text), skip_special_tokens=True)
    assert "".join(decoded.split()) == "".join(text.lower().replace("ё", "е").split())


def test_a_word_has_the_same_tokens_at_any_place(trained: PreTrainedTokenizerFast) -> None:
    word = ids(trained, "почту")[1:-1]
    for text in ("(почту)", "на почту", "почту на", "\n\tпочту!"):
        found = ids(trained, text)
        assert any(found[i : i + len(word)] == word for i in range(len(found)))


def test_the_same_texts_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        train_tokenizer(iter(CORPUS), 400).save_pretrained(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_reloaded_tokenizer_gives_the_same_tokens(trained: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*CORPUS[:3], "", "Ёж №7 \U0001f600", "a" * 300]:
        assert ids(again, text) == ids(trained, text)
    assert again("вопрос", "ответ")["input_ids"] == trained("вопрос", "ответ")["input_ids"]
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(again, f"{name}_token_id") == getattr(trained, f"{name}_token_id")


@pytest.mark.parametrize("vocabulary", [261, 320, 321])
def test_the_embedding_matrix_has_a_multiple_of_64_rows(vocabulary: int) -> None:
    tokenizer = train_tokenizer(CORPUS, vocabulary)
    rows = padded_vocabulary(tokenizer)
    assert rows % 64 == 0
    assert len(tokenizer) <= rows < len(tokenizer) + 64

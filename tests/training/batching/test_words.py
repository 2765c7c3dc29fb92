"""Words of tokenised texts, against BERT's own pre-tokenizer and the `##` of its vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from embedline.errors import InputError
from embedline.models.tokenizer import train_tokenizer
from embedline.training.batching.words import first_tokens

TEXTS = [
    "The spooler does not answer: restart it, then print page 12345.",
    "Переустановите драйвер (версия 2.10) — и перезапустите службу печати!",
    "مرحبا بالعالم, हिन्दी में लिखिए और ёлка",
    "打印机没有反应 and print",
    "  spaces   everywhere \n and\ttabs  ",
    "",
]
CLS = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = CLS
    names = dict(
        zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), SPECIAL, strict=True)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's: `##` begins a piece that goes on with a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=220, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return fast(tokenizer)


def sentence_piece() -> PreTrainedTokenizerFast:
    """XLM-R's: `▁` begins a word, and nothing separates punctuation."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return fast(tokenizer)


def one_sentence() -> PreTrainedTokenizerFast:
    """Llama 2's: spaces become `▁` in the normalizer, and the whole text is one word to the tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Replace("▁", " ")
    trainer = trainers.BpeTrainer(vocab_size=170, special_tokens=SPECIAL, show_progress=False)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    tokenizer.train_from_iterator([word for text in TEXTS * 3 for word, _ in split(text)], trainer)
    return fast(tokenizer)


def bytes_with_spaces() -> PreTrainedTokenizerFast:
    """GPT-2's and ModernBERT's: bytes, and a token begins with the space before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return fast(tokenizer)


KINDS = [word_piece, sentence_piece, one_sentence, bytes_with_spaces, lambda: train_tokenizer(TEXTS * 3, 330)]
NAMES = ["WordPiece", "SentencePiece", "Llama", "byte-level BPE", "trained from scratch"]


def words_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """The pieces of the text that `first_tokens` takes together, without special tokens."""
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    (first,) = first_tokens(tokenizer, [text], max_length=512)
    assert len(first) == max(1, len(encoded["input_ids"]))
    spans: dict[int, tuple[int, int]] = {}
    rows = zip(first, encoded["offset_mapping"], encoded["special_tokens_mask"], strict=False)
    for position, (start, (begins, ends), special) in enumerate(rows):
        if special:
            assert start == position
        else:
            spans[start] = (spans.get(start, (begins, ends))[0], ends)
    return [word for begins, ends in spans.values() if (word := text[begins:ends].strip())]


@pytest.mark.parametrize("make", KINDS, ids=NAMES)
@pytest.mark.parametrize("text", [*TEXTS[:3], *TEXTS[4:]], ids=["en", "ru", "marks", "spaces", "empty"])
def test_words_are_berts_for_every_kind_of_tokenizer(
    make: Callable[[], PreTrainedTokenizerFast], text
) -> None:
    expected = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]
    assert words_of(make(), text) == expected


def test_words_are_those_of_the_pieces_marked_in_the_vocabulary() -> None:
    """The rule of RetroMAE's authors: a piece with `##` belongs to the word before it."""
    tokenizer, pieces = word_piece(), 0
    for text in TEXTS:
        (first,) = first_tokens(tokenizer, [text], max_length=512)
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
        assert [start != i for i, start in enumerate(first)] == [t.startswith("##") for t in tokens]
        pieces += sum(token.startswith("##") for token in tokens)
    assert pieces > 20


@pytest.mark.parametrize("make", KINDS, ids=NAMES)
def test_tokens_are_words_in_scripts_without_spaces(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    """Not the whole clause, which BERT takes apart, too."""
    tokenizer = make()
    (first,) = first_tokens(tokenizer, ["打印机没有反应 and print"], max_length=64)
    pieces = words_of(tokenizer, "打印机没有反应 and print")
    assert pieces[-2:] == ["and", "print"]
    assert all(token in "".join(pieces[:-2]) for token in "打印机没有反应")
    assert len(pieces) > 3
    assert len(set(first)) > 5


def test_bytes_of_one_character_stay_together() -> None:
    tokenizer = train_tokenizer(["plain"], 320)
    (first,) = first_tokens(tokenizer, ["字ж"], max_length=16)
    assert first == [0, 1, 1, 1, 4, 4, 6]  # three bytes of one character, two of the other


def test_rows_are_cut_like_the_ids_and_never_empty() -> None:
    tokenizer = train_tokenizer(TEXTS, 330)
    assert [len(row) for row in first_tokens(tokenizer, TEXTS, max_length=9)] == [
        len(row) for row in tokenizer(TEXTS, max_length=9, truncation=True)["input_ids"]
    ]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    assert first_tokens(tokenizer, [""], max_length=9) == [[0]]


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="needs a fast tokenizer"):
        first_tokens(Slow(), ["a"], max_length=8)  # type: ignore[arg-type]

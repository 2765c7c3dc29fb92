"""A tokenizer trained from scratch: byte-level BPE over words, with case and ё folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from embedline.errors import InputError

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# As in language models: a special token begins a text and none ends it.
DECODER_SPECIAL = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
}


def train_tokenizer(
    texts: Iterable[str],
    vocabulary: int,
    *,
    lowercase: bool = True,
    max_length: int = 512,
    special: Mapping[str, str] = SPECIAL,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`.

    Words and punctuation marks are separated before bytes are merged, so a word has the same tokens after a
    space, a bracket or at the start of a text. With byte tokens no character is unknown.

    Args:
        vocabulary: at most this many tokens, special ones included; small data gives fewer.
        lowercase: fold case, and ё to е.
        max_length: tokens that the saved tokenizer declares as its maximum.
        special: names and texts of the special tokens: SPECIAL or DECODER_SPECIAL.

    Raises:
        InputError: `vocabulary` is smaller than the number of bytes and special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + len(special):
        raise InputError(
            f"{vocabulary} tokens do not hold {len(alphabet)} bytes and {len(special)} special tokens.",
            where="model.vocabulary",
            fix="Use 320 or more.",
        )
    tokenizer = Tokenizer(models.BPE())
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    if lowercase:
        steps += [normalizers.Lowercase(), normalizers.Replace("ё", "е")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}\p{N}]|\p{N}{1,3}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(special.values()),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    first = special.get("cls_token") or special["bos_token"]
    last = [special["sep_token"]] if "sep_token" in special else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[first, "$A", *last],
        pair=[first, "$A", *last, "$B", *last],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, *last)],
    )
    make: Any = PreTrainedTokenizerFast
    trained: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer, model_max_length=max_length, **special
    )
    return trained


def padded_vocabulary(tokenizer: PreTrainedTokenizerFast, multiple: int = 64) -> int:
    """Return the rows of the embedding matrix: the vocabulary rounded up, for faster matrix kernels."""
    return -(-len(tokenizer) // multiple) * multiple

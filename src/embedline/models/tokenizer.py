"""A tokenizer from scratch: byte-level BPE over words, case and ё folded, vocabulary a multiple of 64."""

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
# As language models have them: a text begins with one, and nothing ends it.
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
    """Train on `texts`.

    Words and punctuation marks are separated before bytes are merged, so a word is the same tokens after a
    space, a bracket or at the start of a text. Bytes mean that no character is unknown.

    Args:
        vocabulary: at most this many tokens, special ones included; small data gives fewer.
        special: names and words of the special tokens, of an encoder or of a decoder.

    Raises:
        InputError: fewer tokens than the bytes and the special tokens take.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + len(special):
        raise InputError(
            f"{vocabulary} tokens do not hold {len(alphabet)} bytes and {len(special)} special tokens.",
            where="model.vocabulary",
            fix="Ask for 320 or more.",
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
    """Rows of the embedding matrix: the vocabulary rounded up, which matrix kernels like."""
    return -(-len(tokenizer) // multiple) * multiple

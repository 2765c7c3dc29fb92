"""Words of tokenised texts, for any tokenizer.

A word ends where BERT's tokenizer ends one: at white space and at punctuation (Devlin et al. 2019). In
scripts that are written without spaces each token is a word of its own.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from embedline.errors import InputError

_SEPARATOR, _SPACE, _INSIDE = 0, 1, 2
# First and last character. Thai, Lao, Tibetan, Myanmar; Khmer; kana; Chinese characters (as BERT has them).
_WITHOUT_SPACES = (
    *((0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int
) -> list[list[int]]:
    """Return, for each token of each text, the position of the first token of its word.

    The rows are those of `Embedder.tokenize`. A special token is a word of its own.

    Raises:
        InputError: the tokenizer cannot tell where its tokens stand in the text.
    """
    if not tokenizer.is_fast:
        raise InputError(
            "needs a fast tokenizer, which knows where its tokens stand in a text.",
            where="pretrain.whole_words",
            fix="Set it to false.",
        )
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    rows = zip(texts, encoded["offset_mapping"], strict=True)
    return [
        _first_tokens(text, np.array(offsets, dtype=np.int64).reshape(-1, 2)) or [0] for text, offsets in rows
    ]


def _first_tokens(text: str, offsets_T2: np.ndarray) -> list[int]:
    """Return the same for one text, from where each token begins and ends in it."""
    kinds = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
    inside = kinds == _INSIDE
    glued = np.append(inside, False)  # at each character: whether a word goes on from the one before it
    glued[1:] &= np.append(inside, False)[:-1]
    glued[0] = False
    begins_T, ends_T = offsets_T2.T
    begins_T = _skip_spaces(kinds)[begins_T]  # some tokens begin with the space before their word
    previous_T = np.append(0, ends_T[:-1])
    # Bytes of one character are tokens of the same place.
    continues_T = (glued[begins_T] | (begins_T < previous_T)) & (ends_T > offsets_T2[:, 0])
    positions_T = np.arange(len(continues_T))
    first: list[int] = np.maximum.accumulate(np.where(continues_T, 0, positions_T)).tolist()
    return first


def _skip_spaces(kinds: np.ndarray) -> np.ndarray:
    """Return, for each character and the end, the first one from there on that is no white space."""
    end = len(kinds)
    stops = np.append(np.where(kinds == _SPACE, end, np.arange(end)), end)
    nearest: np.ndarray = np.minimum.accumulate(stops[::-1])[::-1]
    return nearest


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    """Return what each character of Unicode is: inside words, white space, or a separator."""
    kinds = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for code in range(len(kinds)):
        character = chr(code)
        if character.isspace():
            kinds[code] = _SPACE
        elif character.isalnum() or unicodedata.category(character).startswith("M"):
            kinds[code] = _INSIDE
    for first, last in _WITHOUT_SPACES:
        kinds[first : last + 1][kinds[first : last + 1] == _INSIDE] = _SEPARATOR
    return kinds

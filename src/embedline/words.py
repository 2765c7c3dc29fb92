"""Words of any script, and the form in which texts are compared.

Every comparison of two texts by content takes the form from here: duplicates, false negatives,
decontamination, held-out records, known positives of mining. A comparison by bytes (a pool of texts, a
batch's documents) compares the texts themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

# Compatibility characters that say something else than what NFKC makes of them: x² is not x2, ½ not 1⁄2.
_MEANINGFUL = ("<super>", "<sub>", "<fraction>", "<circle>")
_PLANES = 0x20000  # what lies above has no marks but variation selectors, no symbols and no such character


def _set_of(characters: Iterable[str]) -> str:
    """Return the inside of a regular expression's set that matches the characters, in the order of codes."""
    ranges: list[list[int]] = []
    for code in map(ord, characters):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


class _Patterns(NamedTuple):
    word: re.Pattern[str]
    kept: re.Pattern[str]
    code: re.Pattern[str]
    signs: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    """Compile what depends on Unicode's tables, at first use: reading them takes a moment."""
    characters = [(chr(code), unicodedata.category(chr(code))[0]) for code in range(_PLANES)]
    marks = _set_of(c for c, category in characters if category == "M")
    kept = _set_of(c for c, _ in characters if unicodedata.decomposition(c).startswith(_MEANINGFUL))
    sign = f"[{_set_of(c for c, category in characters if category == 'S')}#%&*@\\\\/]|::"
    code = (
        sign  # a symbol: C++, <=, 5%, a/b, 👍
        + r"|^(?:--?|[.!:]|_+)(?=\w)"  # a sign before a word: -5, -d, --all, .NET, !x, _x
        + r"|\d[.,:\u2013-](?=\d)|--"  # within a number: 1.5, 10:30, 5-3
        + r"|[A-Za-z0-9_][(\[{]"  # f(x), a[0]
    )
    brackets = r"[()\[\]{}]{2}"
    return _Patterns(
        re.compile(f"[\\w{marks}]+"),
        re.compile(f"([{kept}]+)"),
        re.compile(code),
        re.compile(f"{sign}|{brackets}"),
    )


# soft hyphen, zero-width characters and joiners, direction marks, variation selectors, ©®℠™
_INVISIBLE = re.compile(
    "[\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufe00-\ufe0f©®\u2120\u2122]"
)
_STRESS = re.compile("(?<=[\u0400-\u052f])[\u0300\u0301]")
_TWO_ALPHABETS = re.compile("[a-z][а-я]|[а-я][a-z]")
_LOOKALIKES = str.maketrans("abcehkmoptxy", "авсенкмортху")

_OPENING, _ENDING = "\"'`«„“‘‹([{", "\"'`»”“’›.,;:!?…"
_CLOSING = _ENDING + ")]}"
_PAIRS = {")": "(", "]": "[", "}": "{"}
_SPACELESS = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def words(text: str) -> list[str]:
    """Split a text into words: letters, marks, numbers and underscores, as in Unicode.

    Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, Chinese, Japanese) come as
    overlapping pairs of characters, the usual baseline of search engines (Lucene's CJKAnalyzer).

    >>> words("हिन्दी text 世界地图")
    ['हिन्दी', 'text', '世界', '界地', '地图']
    """
    found: list[str] = _patterns().word.findall(text)
    return found if text.isascii() or not _SPACELESS.search(text) else [p for w in found for p in pairs(w)]


def pairs(word: str) -> list[str]:
    """Return a word; what is written in a script without spaces as pairs of neighbouring characters."""
    if word.isascii() or not _SPACELESS.search(word):
        return [word]
    return list(_pairs(word))


def _pairs(word: str) -> Iterator[str]:
    end = 0
    for run in _SPACELESS.finditer(word):
        if run.start() > end:
            yield word[end : run.start()]
        end, text = run.end(), run.group()
        yield from (text[i : i + 2] for i in range(max(1, len(text) - 1)))
    if end < len(word):
        yield word[end:]


def comparison_form(text: str) -> str:
    """Return the form in which texts are compared: words in lower case, ё as е, single spaces.

    Letters, marks and numbers count, punctuation does not. What looks like code stays as it is: `C++`, `<=`,
    `-5` and `-D` differ from `C#`, `>=`, `5` and `-d`. NFKC only where it keeps the meaning: x² is not x2.
    Stress marks of Russian and invisible characters go; in a word of two alphabets, Latin letters that look
    like Cyrillic ones are replaced by these. A text without any word is compared as it is, without its white
    space. Idempotent.

    >>> comparison_form("Ещё  раз: ВХОД!")
    'еще раз вход'
    >>> comparison_form("«git branch -D», 5 % и C++.")
    'git branch -D 5 % и C++'
    """
    form = " ".join(chain.from_iterable(map(_tokens, text.split())))
    return form if _patterns().word.search(form) else "".join(text.split())


@lru_cache(1 << 17)
def _tokens(chunk: str) -> tuple[str, ...]:
    """Return what counts of a text between spaces: itself when it looks like code, otherwise its words."""
    core = chunk.lstrip(_OPENING).rstrip(_CLOSING)
    if core.isalnum() and unicodedata.is_normalized("NFKC", core):
        return (_word(core),)
    if not chunk.isascii():
        chunk = _STRESS.sub("", _INVISIBLE.sub("", _compatible(chunk))).replace("\u2212", "-")
        if (parts := chunk.split()) != [chunk]:  # ´ is a space and an accent
            return tuple(chain.from_iterable(map(_tokens, parts)))
    word, _, code, signs = _patterns()
    if not word.search(chunk.replace("_", "")):
        return (chunk,) if signs.search(chunk) else ()
    core = chunk.lstrip(_OPENING).rstrip(_ENDING)
    while core and core[-1] in _PAIRS and core.count(core[-1]) > core.count(_PAIRS[core[-1]]):
        core = core[:-1].rstrip(_ENDING)
    if code.search(core):
        return (core,)
    return tuple(map(_word, word.findall(core.replace("_", " "))))


def _word(word: str) -> str:
    word = word.casefold()
    if word.isascii():
        return word
    word = word.replace("ё", "е")
    return word.translate(_LOOKALIKES) if _TWO_ALPHABETS.search(word) else word


def _compatible(text: str) -> str:
    if unicodedata.is_normalized("NFKC", text):
        return text
    parts = _patterns().kept.split(unicodedata.normalize("NFC", text))
    parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
    return "".join(parts)

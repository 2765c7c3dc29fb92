"""Normalised text for training, and the form in which texts are compared."""

from __future__ import annotations

import re
import unicodedata

from embedline.data.markup import strip_html

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# control characters, and the invisible ones that only break words: soft hyphen, zero-width space, byte order
# mark, direction marks; the joiners U+200C and U+200D carry meaning and stay
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_GAPS = re.compile(r"\n{3,}")
_WORD = re.compile(r"[^\W_]+")
# not part of a word: stress marks, soft hyphens, zero-width characters
_UNREAD = re.compile("[\u0300\u0301\xad\u200b-\u200f\u2060\ufeff]")
_TWO_ALPHABETS = re.compile("[a-z][а-я]|[а-я][a-z]")
_LOOKALIKES = str.maketrans("abcehkmoptxy", "авсенкмортху")


def normalize(text: str, max_chars: int | None = None) -> str:
    """Normalise text: NFC, without markup, control characters and repeated white space; idempotent.

    NFC, not NFKC, which turns x² into x2 and ½ into 1⁄2 and so changes technical text. Only real HTML tags
    are removed: `a < b`, `List<int>`, `<?php` and code between backticks stay. Line breaks stay, at most one
    blank line in a row. A longer text is cut at `max_chars`.
    """
    while True:
        once = _once(text)
        if max_chars is not None and len(once) > max_chars:
            once = once[:max_chars].rstrip()
        if once == text:
            return once
        text = once  # `&amp;lt;b&amp;gt;` is a tag in the third pass; each pass makes the text shorter


def _once(text: str) -> str:
    if "<" in text or "&" in text:
        text = strip_html(text)
    if not text.replace("\n", " ").isprintable():  # tabs, controls, other spaces: few texts have any
        text = _LINE_ENDS.sub("\n", text)
        text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    elif "  " in text:
        text = _SPACES.sub(" ", text)
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return (_GAPS.sub("\n\n", text) if "\n\n\n" in text else text).strip()


def comparison_form(text: str) -> str:
    """Return the form in which texts are compared: NFKC, lower case, ё as е, words only, single spaces.

    Without stress marks and invisible characters; in a word of two alphabets, Latin letters that look like
    Cyrillic ones are replaced by these. A text without any word (such as an operator) is compared as it is,
    without its white space.

    >>> comparison_form("Ещё  раз: ВХОД!")
    'еще раз вход'
    """
    if not text.isascii():
        if not unicodedata.is_normalized("NFKC", text):
            text = unicodedata.normalize("NFKC", text)
        text = _UNREAD.sub("", text)
    text = text.lower().replace("ё", "е")
    words = _WORD.findall(text)
    if not text.isascii() and _TWO_ALPHABETS.search(text):
        words = [word.translate(_LOOKALIKES) if _TWO_ALPHABETS.search(word) else word for word in words]
    return " ".join(words) or "".join(text.split())

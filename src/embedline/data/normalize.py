"""Normalised text for training."""

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

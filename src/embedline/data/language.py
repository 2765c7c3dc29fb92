"""A language check by script: it separates Russian from English and passes what it cannot decide."""

from __future__ import annotations

import re

SAMPLE_CHARS = 600
MIN_LETTERS, MIN_WORDS = 40, 5
# Russian documentation is full of Latin identifiers; English documentation hardly ever holds Cyrillic.
MIN_CYRILLIC_IN_RU = 0.15
MIN_LATIN_IN_EN = 0.75
MIN_PROSE = 0.6
MAX_FOREIGN, MIN_HARD_SIGNS = 0.02, 0.01

_CYRILLIC = re.compile(r"[\u0400-\u052f]+")
_NOT_RUSSIAN = re.compile("[\u0450\u0452-\u045f\u0460-\u052f]")
_BULGARIAN = re.compile("ъ(?![еёюя])")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_OTHER = re.compile(r"[^\W\d_A-Za-z\u00c0-\u024f\u0400-\u052f]+")
_PROSE_WORD = re.compile(r"""[("'«“]*[A-Za-z\u00c0-\u024f]?[a-z\u00df-\u024f'’-]*[)"'»”.,;:!?]*""")


def letters(text: str) -> tuple[int, int, int]:
    """Count Cyrillic, Latin and other letters in the first `SAMPLE_CHARS` characters."""
    sample = text[:SAMPLE_CHARS]
    without_cyrillic = _CYRILLIC.sub("", sample)
    without_latin = _LATIN.sub("", without_cyrillic)
    without_other = _OTHER.sub("", without_latin)
    return (
        len(sample) - len(without_cyrillic),
        len(without_cyrillic) - len(without_latin),
        len(without_latin) - len(without_other),
    )


def is_written_in(text: str, language: str) -> bool:
    """Return whether `text` may be in `language` (ru, en); other languages are not checked.

    True when it cannot be decided, also for a short text in another Cyrillic language whose letters are all
    Russian. Russian documentation has titles that are only product names and passages that are only code: a
    Latin text is rejected as Russian only when it is long enough and reads as prose. A Cyrillic text is never
    accepted as English.

    >>> is_written_in("Как распечатать этикетку?", "en")
    False
    """
    if language not in {"ru", "en"}:
        return True
    cyrillic, latin, other = letters(text)
    total = cyrillic + latin + other
    if total == 0:
        return True
    if language == "en":
        return latin >= MIN_LATIN_IN_EN * total
    if other > cyrillic + latin or _is_other_cyrillic(text, cyrillic):
        return False
    return total < MIN_LETTERS or cyrillic >= MIN_CYRILLIC_IN_RU * total or not _is_latin_prose(text)


def _is_other_cyrillic(text: str, cyrillic: int) -> bool:
    """Return whether a Cyrillic text has letters that Russian lacks, or ъ where only Bulgarian has it.

    Russian writes ъ before vowels; before 1918, when it had ѣ and і as well, also at the end of words.
    """
    sample = text[:SAMPLE_CHARS].lower()
    if "ѣ" in sample:
        return False
    if len(_NOT_RUSSIAN.findall(sample)) > MAX_FOREIGN * cyrillic:
        return True
    hard_signs = len(_BULGARIAN.findall(sample))
    return hard_signs >= max(2, MIN_HARD_SIGNS * cyrillic) and not re.search("[ыэё]", sample)


def _is_latin_prose(text: str) -> bool:
    """Return whether most words are plain words, not identifiers, constants, numbers or addresses."""
    words = text[:SAMPLE_CHARS].split()
    plain = sum(_PROSE_WORD.fullmatch(word) is not None for word in words)
    return len(words) >= MIN_WORDS and plain >= MIN_PROSE * len(words)


def may_be(text: str, language: str) -> bool:
    """Return whether `text` may be in `language`; for `en-ru` (cross-lingual), in either of the two."""
    return any(is_written_in(text, part) for part in language.split("-"))


def guess(text: str) -> str:
    """Guess `ru` or `en` from the script; empty when it cannot be decided."""
    cyrillic, latin, other = letters(text)
    total = cyrillic + latin + other
    if total == 0:
        return ""
    if cyrillic >= MIN_CYRILLIC_IN_RU * total and cyrillic >= other:
        return "" if _is_other_cyrillic(text, cyrillic) else "ru"
    return "en" if latin >= MIN_LATIN_IN_EN * total else ""

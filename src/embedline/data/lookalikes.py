"""Letters of Cyrillic and Greek that look like Latin ones, after Unicode's confusables (UTS #39).

A word is reduced to a skeleton, in which letters that look alike are one letter. Both sides of a comparison
are reduced, so it does not matter which alphabet a word is meant to be in, nor whether all of it is replaced.
Capitals count, too (В and B), because words are compared in lower case.
"""

from __future__ import annotations

from functools import lru_cache

from embedline.words import pairs

_CYRILLIC = str.maketrans("авсенкмортхуіјѕԁһӏԛԝѵ", "abcehkmoptxyijsdhlqwv")
# Greek among Cyrillic letters; ς is σ in lower case, and ϲ a letter of its own
_GREEK = str.maketrans("αάβεέηήιίκμνοόρσςϲτυύχγπλδφ", "aabeehhiikmhoopccctyyxгплдф")
# Greek in a word of Latin letters: η is an n there, υ a u, γ a y
_GREEK_IN_LATIN = str.maketrans("αάβεέηήιίκμνοόρσςϲτυύχγω", "aabeenniikmvoopccctuuxyw")


@lru_cache(1 << 17)
def skeleton(token: str) -> tuple[str, ...]:
    """Return the skeleton of a word of a comparison form; pairs of characters in a script without spaces.

    >>> skeleton("ρыба") == skeleton("рыба") == ("pыba",)
    True
    """
    token = token.casefold()
    if token.isascii():
        return (token,)
    if any("a" <= letter <= "z" for letter in token) and not any("а" <= letter <= "я" for letter in token):
        token = token.translate(_GREEK_IN_LATIN)
    return tuple(pairs(token.translate(_GREEK).translate(_CYRILLIC)))

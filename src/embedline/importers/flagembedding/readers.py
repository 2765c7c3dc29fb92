"""Readers of a flag's value from the words that follow it on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Reader = Callable[[list[str]], Any]


def text(words: list[str]) -> str:
    """Read exactly one word."""
    (word,) = words
    return word


def texts(words: list[str]) -> list[str]:
    """Read one word or more."""
    if not words:
        raise ValueError
    return words


def integer(words: list[str]) -> int:
    """Read one whole number."""
    return int(text(words))


def integers(words: list[str]) -> list[int]:
    """Read one whole number or more."""
    return [int(word) for word in texts(words)]


def number(words: list[str]) -> float:
    """Read one number."""
    return float(text(words))


def boolean(words: list[str]) -> bool:
    """Read a switch as transformers' HfArgumentParser does: alone, or with a word for true or false."""
    return _SWITCH[text(words).lower() if words else "true"]


_SWITCH = dict.fromkeys(("yes", "true", "t", "y", "1"), True)
_SWITCH |= dict.fromkeys(("no", "false", "f", "n", "0"), False)
EXPECTED: dict[Reader, str] = {
    text: "one value",
    texts: "at least one value",
    integer: "a whole number",
    integers: "whole numbers",
    number: "a number",
    boolean: "True or False",
}

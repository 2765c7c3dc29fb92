"""Lists that were printed into a text, as data frames write them to CSV: JSON, Python's and numpy's."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
_BEGINNING = re.compile(r"""\[\s*(?:['"]|\]$)""")  # not the check box of Markdown: [ ] to do
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# numpy separates the items by blanks alone, where Python would join the strings: ['a' 'b'] is ['ab'].
_NUMPY_STRINGS = re.compile(rf"\[\s*{_STRING}(?:\s+{_STRING})+\s*\]", re.DOTALL)
_NUMPY_NUMBERS = re.compile(r"\[\s*[-+.\w]+(?:\s+[-+.\w]+)+\s*\]")


class AmbiguousListError(ValueError):
    """A text that begins as a printed list and is none that can be read; the message is the reason."""


def is_printed_list(text: str) -> bool:
    """Return whether a text is a list of texts (or the beginning of one), or an empty list, in print.

    >>> is_printed_list("['a', 'b']"), is_printed_list("[see section 3]")
    (True, False)
    """
    return _BEGINNING.match(_brackets(text)) is not None


def read_printed_list(text: str) -> list[Any]:
    """Return the items of a printed list.

    >>> read_printed_list("['a' 'b']")
    ['a', 'b']

    Raises:
        AmbiguousListError: it cannot be read as a list, or has items that are neither texts nor numbers.
    """
    body = _brackets(text)
    without_texts = re.sub(_STRING, "'", body, flags=re.DOTALL)
    if "..." in without_texts:
        raise AmbiguousListError("is a list that was shortened (...) when it was printed")
    if _NUMPY_STRINGS.fullmatch(body):
        return [ast.literal_eval(item) for item in re.findall(_STRING, body, re.DOTALL)]
    if _NUMPY_NUMBERS.fullmatch(body):
        body = "[" + ",".join(body[1:-1].split()) + "]"
    elif re.search(r"'\s*'", without_texts):
        raise AmbiguousListError("is a list in which a comma is missing")
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(body)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(items, list) and all(isinstance(item, str | int | float) for item in items):
            return items
    raise AmbiguousListError("begins as a printed list and is none")


def _brackets(text: str) -> str:
    """Return the list inside a printed numpy array; any other text as it is."""
    text = text.strip()
    found = _ARRAY.fullmatch(text)
    return found[1] if found else text

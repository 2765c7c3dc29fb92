"""The expressions of a workflow, `${{ … }}`, evaluated as the service documents them.

Operators ! && || == != and parentheses, contexts (`inputs.force`), a few functions. As there, && and || give
back a value, comparisons ignore case and make numbers of unlike values, and what is not there is null. A
context that the service does not offer at that place of a workflow is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|(\d+(?:\.\d+)?)|([A-Za-z_][\w-]*)|(&&|\|\||==|!=|[!().,\[\]]))")
_CONSTANTS = {"true": True, "false": False, "null": None}


def resolve(text: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] = {}) -> str:
    """Return a text with every `${{ … }}` in it replaced."""
    return re.sub(
        r"\$\{\{(.*?)\}\}",
        lambda found: as_text(evaluate(found[1], contexts, functions)),
        text,
        flags=re.DOTALL,
    )


def evaluate(
    expression: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] = {}
) -> Any:
    """Return the value of one expression."""
    parser = _Parser(_tokens(expression), contexts, {**_FUNCTIONS, **functions})
    value = parser.either()
    if parser.tokens:
        raise ValueError(f"{expression!r}: what does {parser.tokens[0]!r} mean here?")
    return value


def contexts_of(expression: str) -> set[str]:
    """Return the contexts that an expression names."""
    tokens = _tokens(expression)
    return {
        str(value)
        for number, (kind, value) in enumerate(tokens)
        if kind == "name"
        and value not in _CONSTANTS
        and (number == 0 or tokens[number - 1] != ("sign", "."))
        and (number + 1 == len(tokens) or tokens[number + 1] != ("sign", "("))
    }


def expressions_in(text: str) -> list[str]:
    return [found.strip() for found in re.findall(r"\$\{\{(.*?)\}\}", text, flags=re.DOTALL)]


def truth(value: Any) -> bool:
    return value not in (None, "", 0, False)


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _tokens(expression: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    at, text = 0, expression.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{expression!r} is no expression, from {text[at:]!r} on")
        string, number, name, sign = match.groups()
        if string is not None:
            found.append(("value", string.replace("''", "'")))
        elif number is not None:
            found.append(("value", float(number) if "." in number else int(number)))
        else:
            found.append(("name", name) if name else ("sign", sign))
        at = match.end()
    return found


class _Parser:
    def __init__(
        self,
        tokens: list[tuple[str, Any]],
        contexts: Mapping[str, Any],
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.tokens, self._contexts, self._functions = tokens, contexts, functions

    def either(self) -> Any:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = value if truth(value) else other
        return value

    def _both(self) -> Any:
        value = self._compared()
        while self._take("&&"):
            other = self._compared()
            value = other if truth(value) else value
        return value

    def _compared(self) -> Any:
        value = self._single()
        for sign in ("==", "!="):
            if self._take(sign):
                return _equal(value, self._single()) == (sign == "==")
        return value

    def _single(self) -> Any:
        if self._take("!"):
            return not truth(self._single())
        if self._take("("):
            value = self.either()
            self._need(")")
            return value
        kind, word = self.tokens.pop(0)
        if kind == "value":
            return word
        if kind != "name":
            raise ValueError(f"what does {word!r} mean here?")
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if self._take("("):
            return self._functions[word](*self._arguments())
        return self._properties(word)

    def _properties(self, name: str) -> Any:
        if name not in self._contexts:
            raise ValueError(f"the service has no context {name!r} here")
        value = self._contexts[name]
        while self.tokens and self.tokens[0] in (("sign", "."), ("sign", "[")):
            if self._take("."):
                key = self.tokens.pop(0)[1]
            else:
                self._need("[")
                key = self.either()
                self._need("]")
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _arguments(self) -> list[Any]:
        found: list[Any] = []
        while not self._take(")"):
            found.append(self.either())
            self._take(",")
        return found

    def _take(self, sign: str) -> bool:
        if self.tokens and self.tokens[0] == ("sign", sign):
            self.tokens.pop(0)
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise ValueError(f"{sign!r} is missing")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold() == other.casefold()
    if type(one) is type(other):
        return bool(one == other)
    return _number(one) == _number(other)


def _number(value: Any) -> float:
    if value is None or value is False or value == "":
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _contains(where: Any, what: Any) -> bool:
    if isinstance(where, Sequence) and not isinstance(where, str):
        return any(_equal(item, what) for item in where)
    return as_text(what).casefold() in as_text(where).casefold()


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "contains": _contains,
    "startsWith": lambda text, start: as_text(text).casefold().startswith(as_text(start).casefold()),
    "endsWith": lambda text, end: as_text(text).casefold().endswith(as_text(end).casefold()),
    "format": lambda text, *values: re.sub(r"\{(\d+)\}", lambda found: as_text(values[int(found[1])]), text),
}

"""The cleaning rules that look at one text: a rule is a function, and its name is the function's.

To add a rule, write a function here and add it to `TEXT_RULES`; its threshold is a field of `CleanConfig`.
Counts, rejected rows, metrics and the table of the report take the name from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from embedline.config.data import CleanConfig
from embedline.data.language import may_be


@dataclass(frozen=True)
class Text:
    """A tidied text, what it is in its row, and the language that the row states (empty: none)."""

    text: str
    role: Literal["query", "positive", "passage"]
    language: str


TextRule = Callable[[Text, CleanConfig], bool]  # whether the text breaks the rule


def query_too_short(text: Text, config: CleanConfig) -> bool:
    return text.role == "query" and len(text.text) < config.min_query_chars


def positive_too_short(text: Text, config: CleanConfig) -> bool:
    return text.role == "positive" and len(text.text) < config.min_positive_chars


def too_short(text: Text, config: CleanConfig) -> bool:
    return text.role == "passage" and len(text.text) < config.min_positive_chars


def language(text: Text, config: CleanConfig) -> bool:
    """Return True when the row's language is not allowed, or its text is in no allowed language."""
    if not text.language:
        return not any(may_be(text.text, allowed) for allowed in config.languages)
    return not (set(text.language.split("-")) <= set(config.languages) and may_be(text.text, text.language))


# Applied in this order: a row is counted under the first rule that it breaks.
TEXT_RULES: tuple[TextRule, ...] = (query_too_short, positive_too_short, too_short, language)


def rule_name(rule: TextRule) -> str:
    """Return the name under which rejected rows are counted."""
    return str(rule.__name__)

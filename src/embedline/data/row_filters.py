"""The filters that look at one row at a time: they tidy it, then return the first rule that it breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import get_args

from embedline.config.data import CleanConfig, Stage
from embedline.data.decontaminate import Protected, Tidied
from embedline.data.evaluation_index import Leak, Phrase
from embedline.data.normalize import normalize
from embedline.data.tables import Row
from embedline.data.text_rules import TEXT_RULES, Text, rule_name
from embedline.words import comparison_form

Uses = frozenset[str]
_ONE_USE: Uses = frozenset({"text"})


@dataclass(frozen=True)
class FilterResult:
    """A tidied row, the rule it breaks (or None), its sides in comparison form, and what it is used for.

    Args:
        leak: the evaluation text for which the row is rejected.
        phrases: of evaluation texts; all rows decide whether they are a leak (`evaluation_index`).

    Rows are duplicates within a use only: a weak pair is no duplicate of one for fine-tuning, nor is a pair
    as question and answer a duplicate of the same pair with a similarity score.
    """

    row: Row
    rule: str | None
    forms: tuple[str, ...] = ()
    uses: Uses = _ONE_USE
    leak: Leak | None = None
    phrases: frozenset[Phrase] = frozenset()


@dataclass
class RowFilters:
    """The filters of rows: they tidy, check, and find exact duplicates by digests of passed rows.

    Args:
        stages: the training stages that use each source; a source that is not named is used by all.

    >>> filters = RowFilters(CleanConfig(), Protected())
    >>> filters.passage({"title": "", "text": "коротко", "language": "ru"}, Counter()).rule
    'too_short'
    """

    config: CleanConfig
    protected: Protected
    stages: Mapping[str, Collection[str]] = field(default_factory=dict)
    _seen: dict[bytes, Uses] = field(default_factory=dict)

    def record(self, row: Row, changed: Counter[str]) -> FilterResult:
        """Apply the rules in order: empty, `TEXT_RULES`, evaluation text, exact duplicate.

        A positive that breaks a text rule is removed; the record is rejected when none is left, or when its
        query breaks the rule. What was altered is counted in `changed`.
        """
        query = self._tidy(row["query"], changed)
        tidied = [self._tidy(text, changed) for text in row["positives"]]
        positives = [text for text in tidied if text]
        row = {**row, "query": query}
        if not query or not positives:
            return FilterResult({**row, "positives": positives}, "empty")
        for rule in TEXT_RULES:
            kept = [t for t in positives if not rule(Text(t, "positive", row["language"]), self.config)]
            if not kept or rule(Text(query, "query", row["language"]), self.config):
                return FilterResult({**row, "positives": positives}, rule_name(rule))
            positives = kept
        changed["positives_removed"] += len(row["positives"]) - len(positives)
        question, answers = Tidied.of(query), [Tidied.of(text) for text in positives]
        query_form, positive_forms = question.form, [answer.form for answer in answers]
        row["positives"] = positives
        indices = [tidied.index(text) for text in positives]
        row["positive_scores"] = _selected(row.get("positive_scores"), indices)
        negatives = self._negatives(row["negatives"], {query_form, *positive_forms}, changed)
        row["negatives"] = list(negatives.values())
        row["negative_scores"] = _selected(row.get("negative_scores"), list(negatives))
        leak, phrases = self.protected.in_record(question, answers)
        if leak:
            return FilterResult(row, leak.rule, leak=leak)
        uses = self._uses(row)
        if self.config.exact_duplicates and self._is_known(uses, query_form, *sorted(positive_forms)):
            return FilterResult(row, "exact_duplicate")
        return FilterResult(row, None, (query_form, " ".join(positive_forms)), uses, phrases=phrases)

    def passage(self, row: Row, changed: Counter[str]) -> FilterResult:
        """Apply the same rules to a passage: its title is tidied, its text is checked."""
        text = self._tidy(row["text"], changed)
        row = {**row, "title": self._tidy(row["title"], changed), "text": text}
        if not text:
            return FilterResult(row, "empty")
        for rule in TEXT_RULES:
            if rule(Text(text, "passage", row["language"]), self.config):
                return FilterResult(row, rule_name(rule))
        tidied = Tidied.of(text)
        leak, phrases = self.protected.in_passage(tidied)
        if leak:
            return FilterResult(row, leak.rule, leak=leak)
        if self.config.exact_duplicates and self._is_known(_ONE_USE, tidied.form):
            return FilterResult(row, "exact_duplicate")
        return FilterResult(row, None, (tidied.form,), phrases=phrases)

    def _tidy(self, text: str, changed: Counter[str]) -> str:
        tidied = normalize(text)
        if len(tidied) <= self.config.max_chars:
            return tidied
        changed["texts_cut"] += 1
        return normalize(tidied, self.config.max_chars)

    def _negatives(self, texts: list[str], known: set[str], changed: Counter[str]) -> dict[int, str]:
        """Return the tidied negatives by their index, without blanks, repetitions and false negatives.

        A negative that equals the query or a positive is false: training on it teaches the opposite.
        """
        kept: dict[int, str] = {}
        seen = set(known)
        for index, text in enumerate(texts):
            tidied = self._tidy(text, changed)
            form = comparison_form(tidied)
            if form and form not in seen:
                seen.add(form)
                kept[index] = tidied
        changed["negatives_removed"] += len(texts) - len(kept)
        return kept

    def _uses(self, row: Row) -> Uses:
        kind = "pair" if row["score"] is None else "scored"
        return frozenset(f"{stage} {kind}" for stage in self.stages.get(row["source"], get_args(Stage)))

    def _is_known(self, uses: Uses, *forms: str) -> bool:
        """Return whether earlier rows of the same text cover all uses of this one."""
        digest = blake2b("\x1f".join(forms).encode(), digest_size=16).digest()
        covered = self._seen.get(digest, frozenset())
        if uses <= covered:
            return True
        self._seen[digest] = covered | uses
        return False


def _selected(scores: Sequence[float] | None, indices: Sequence[int]) -> list[float] | None:
    return None if scores is None else [scores[index] for index in indices]

"""The rules that look at one row at a time: tidy it, then name the first rule it breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import get_args

from embedline.config.data import CleanConfig, Stage
from embedline.data.decontaminate import Protected
from embedline.data.language import may_be
from embedline.data.normalize import comparison_form, normalize
from embedline.data.tables import Row

Uses = frozenset[str]
_ONE_USE: Uses = frozenset({"text"})


@dataclass(frozen=True)
class Judged:
    """A tidied row, the rule it breaks (or None), its sides in comparison form, and what it is used for.

    Rows are duplicates within a use only: a weak pair does not stand for the one that fine-tunes, nor a pair
    as question and answer for the same pair with a score of its likeness.
    """

    row: Row
    rule: str | None
    forms: tuple[str, ...] = ()
    uses: Uses = _ONE_USE


@dataclass
class Screen:
    """Tidies rows and judges them; remembers what it has seen, for exact duplicates.

    Args:
        stages: the training stages that use each source; of a source that is not named, all do.
    """

    config: CleanConfig
    protected: Protected
    stages: Mapping[str, Collection[str]] = field(default_factory=dict)
    _seen: dict[bytes, Uses] = field(default_factory=dict)

    def record(self, row: Row, changed: Counter[str]) -> Judged:
        """Rules in order: empty, too short, language, evaluation text, exact duplicate.

        A positive that breaks a rule of its own text is removed; the record goes when none is left. What was
        altered is counted in `changed`.
        """
        config = self.config
        query = self._tidy(row["query"], changed)
        tidied = [self._tidy(text, changed) for text in row["positives"]]
        positives = [text for text in tidied if text]
        row = {**row, "query": query}
        if not query or not positives:
            return Judged({**row, "positives": positives}, "empty")
        if len(query) < config.min_query_chars:
            return Judged({**row, "positives": positives}, "query_too_short")
        long_enough = [text for text in positives if len(text) >= config.min_positive_chars]
        if not long_enough:
            return Judged({**row, "positives": positives}, "positive_too_short")
        kept = [text for text in long_enough if self._language_fits(text, row["language"])]
        if not kept or not self._language_fits(query, row["language"]):
            return Judged({**row, "positives": long_enough}, "language")
        changed["positives_removed"] += len(row["positives"]) - len(kept)
        query_form, positive_forms = comparison_form(query), [comparison_form(text) for text in kept]
        row["positives"] = kept
        row["positive_scores"] = _chosen(row.get("positive_scores"), [tidied.index(text) for text in kept])
        negatives = self._negatives(row["negatives"], {query_form, *positive_forms}, changed)
        row["negatives"] = list(negatives.values())
        row["negative_scores"] = _chosen(row.get("negative_scores"), list(negatives))
        if leak := self.protected.leak_in_record(query_form, positive_forms):
            return Judged(row, leak)
        uses = self._uses(row)
        if config.exact_duplicates and self._is_known(uses, query_form, *sorted(positive_forms)):
            return Judged(row, "exact_duplicate")
        return Judged(row, None, (query_form, " ".join(positive_forms)), uses)

    def passage(self, row: Row, changed: Counter[str]) -> Judged:
        """The same rules for a passage; its title is tidied, and its text judged."""
        text = self._tidy(row["text"], changed)
        row = {**row, "title": self._tidy(row["title"], changed), "text": text}
        if not text:
            return Judged(row, "empty")
        if len(text) < self.config.min_positive_chars:
            return Judged(row, "too_short")
        if not self._language_fits(text, row["language"]):
            return Judged(row, "language")
        form = comparison_form(text)
        if leak := self.protected.leak_in_passage(form):
            return Judged(row, leak)
        if self.config.exact_duplicates and self._is_known(_ONE_USE, form):
            return Judged(row, "exact_duplicate")
        return Judged(row, None, (form,))

    def _tidy(self, text: str, changed: Counter[str]) -> str:
        tidied = normalize(text)
        if len(tidied) <= self.config.max_chars:
            return tidied
        changed["texts_cut"] += 1
        return normalize(tidied, self.config.max_chars)

    def _negatives(self, texts: list[str], known: set[str], changed: Counter[str]) -> dict[int, str]:
        """By their places, without blanks, repetitions, and texts equal to query or positive.

        Those teach the opposite.
        """
        kept: dict[int, str] = {}
        seen = set(known)
        for place, text in enumerate(texts):
            tidied = self._tidy(text, changed)
            form = comparison_form(tidied)
            if form and form not in seen:
                seen.add(form)
                kept[place] = tidied
        changed["negatives_removed"] += len(texts) - len(kept)
        return kept

    def _language_fits(self, text: str, language: str) -> bool:
        """A row that names no language may be in any that is allowed."""
        allowed = self.config.languages
        if not language:
            return any(may_be(text, one) for one in allowed)
        return set(language.split("-")) <= set(allowed) and may_be(text, language)

    def _uses(self, row: Row) -> Uses:
        kind = "pair" if row["score"] is None else "scored"
        return frozenset(f"{stage} {kind}" for stage in self.stages.get(row["source"], get_args(Stage)))

    def _is_known(self, uses: Uses, *forms: str) -> bool:
        """Whether earlier rows of the same text serve everything that this one would."""
        digest = blake2b("\x1f".join(forms).encode(), digest_size=16).digest()
        served = self._seen.get(digest, frozenset())
        if uses <= served:
            return True
        self._seen[digest] = served | uses
        return False


def _chosen(scores: list[float] | None, places: list[int]) -> list[float] | None:
    return None if scores is None else [scores[place] for place in places]

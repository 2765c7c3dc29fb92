"""What a rule compares: one side's scores, and the sentence a comparison ends in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from embedline.config.gate import Rule

ALL_RETRIEVAL = "*"
DENSE = "dense"
_RU = {"champion": "чемпиона", "base": "базовой модели", "untrained": "необученной модели", "bm25": "BM25"}
TOLERANCE = 1e-9  # 0.51 - 0.01 is not 0.50 in binary; a drop of exactly the allowed size passes


@dataclass(frozen=True)
class Reason:
    """One check: which rule, whether it holds, one sentence with the numbers in English and in Russian."""

    rule: str
    passed: bool
    text: str
    ru: str


class Phrase(NamedTuple):
    """The same in English and in Russian."""

    en: str
    ru: str


@dataclass(frozen=True)
class Score:
    """One score of one side: the full vector, torch (or no) runtime."""

    set: str
    kind: str
    metric: str
    main: bool
    value: float
    head: str = DENSE


class Side:
    """All scores of one model that rules may ask for.

    Args:
        name: candidate, champion, base, bm25, untrained.
        rows: score rows of any models; only this model's full-width, non-ONNX rows count. What is asked
            without naming a head is asked of the dense one.
    """

    def __init__(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        self.name = name
        own = [row for row in rows if row["model"] == name and _is_plain(row)]
        width: dict[tuple[str, str], int] = {}
        for row in own:
            width[_place(row)] = max(width.get(_place(row), 0), _dim(row))
        self.scores = [_score(row) for row in own if _dim(row) == width[_place(row)]]
        self.digests = {str(row["digest"]) for row in own if row.get("digest")}

    def find(self, set_: str, metric: str = "main", head: str = DENSE) -> Score | None:
        """The score of a set; of several rows for the same one, the lowest (or the one that is no number)."""
        found = [
            s
            for s in self.scores
            if (s.set, s.head) == (set_, head) and (s.main if metric == "main" else s.metric == metric)
        ]
        return min(found, key=lambda s: s.value if math.isfinite(s.value) else -math.inf, default=None)

    def sets(self, metric: str = "main", kind: str | None = None, head: str = DENSE) -> set[str]:
        """The names of the sets (of one kind) that have a score in `metric`."""
        names = {s.set for s in self.scores if kind is None or s.kind == kind}
        return {name for name in names if self.find(name, metric, head)}

    def mean(self, sets: Iterable[str], metric: str = "main", head: str = DENSE) -> float:
        """The mean over `sets`, each of which has a score; not a number when one of them is none."""
        values = [score.value for name in sorted(sets) if (score := self.find(name, metric, head))]
        return math.fsum(values) / len(values)


def check_rule(label: str, rule: Rule, candidate: Side, other: Side | None) -> list[Reason]:
    """The reasons of one rule: one for `min`, one for each comparison with `other`.

    Args:
        label: how the rule is called in the verdict.
        other: the side that `rule.against` names; None when there is no such model.
    """
    reasons = []
    if rule.min is not None:
        reasons.append(_at_least(f"{label}.min", rule, candidate, rule.min))
    for name, change in (("max_drop", rule.max_drop), ("min_gain", rule.min_gain)):
        if change is None:
            continue
        if other is None:
            text = f"There is no {rule.against} to compare with: not applicable."
            ru = f"Нет {_RU[str(rule.against)]}, сравнивать не с чем: правило неприменимо."
            reasons.append(Reason(f"{label}.{name}", True, text, ru))
            continue
        floor = -change if name == "max_drop" else change
        reasons.append(_against(f"{label}.{name}", rule, candidate, other, floor))
    return reasons


def compare(label: str, what: Phrase, ours: float, theirs: float, other: str, floor: float) -> Reason:
    """Whether `ours - theirs` is at least `floor` (negative: a drop that is allowed)."""
    change = ours - theirs
    size, bar = f"{abs(change):.4f}", f"{abs(floor):.4f}"
    passed = change >= floor - TOLERANCE
    moved = Phrase(f"a gain of {size}", f"рост {size}")
    if change < 0:
        moved = Phrase(f"a drop of {size}", f"падение {size}")
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        moved, passed = Phrase("not comparable", "несравнимо"), False
    asked = Phrase(f"a drop of {bar} is allowed", f"допустимо падение на {bar}")
    if floor > 0:
        asked = Phrase(f"a gain of at least {bar} is required", f"нужен рост не меньше {bar}")
    return Reason(
        label,
        passed,
        f"{what.en} of the candidate is {ours:.4f} and of the {other} {theirs:.4f}: {moved.en}, {asked.en}.",
        f"{what.ru}: у кандидата {ours:.4f}, у {_RU[other]} {theirs:.4f}; {moved.ru}, {asked.ru}.",
    )


def _at_least(label: str, rule: Rule, candidate: Side, bar: float) -> Reason:
    sets = _sets_asked(rule, candidate)
    what = _what(rule, sets)
    if not sets:
        return Reason(
            label,
            False,
            f"The candidate has no score for {what.en}; {bar:.4f} is required.",
            f"{what.ru}: у кандидата нет оценки, нужно {bar:.4f}.",
        )
    value = candidate.mean(sets, rule.metric, rule.head)
    return Reason(
        label,
        math.isfinite(value) and value >= bar - TOLERANCE,
        f"{what.en} of the candidate is {value:.4f}; at least {bar:.4f} is required.",
        f"{what.ru}: у кандидата {value:.4f}, нужно не меньше {bar:.4f}.",
    )


def _against(label: str, rule: Rule, candidate: Side, other: Side, floor: float) -> Reason:
    sets = _sets_asked(rule, candidate) & _sets_asked(rule, other)
    what = _what(rule, sets)
    if not sets:
        without = [s.name for s in (candidate, other) if not _sets_asked(rule, s)]
        missing = f"The {' and the '.join(without)} has" if without else "Candidate and other side have"
        common = "no score" if without else "no set in common"
        names = " и ".join(_RU.get(name, "кандидата") for name in without)
        lacking = f"нет оценки у {names}" if without else "нет общих наборов"
        return Reason(
            label,
            False,
            f"{missing} {common} for {what.en}: nothing to compare.",
            f"{what.ru}: {lacking}, сравнивать нечего.",
        )
    ours, theirs = (side.mean(sets, rule.metric, rule.head) for side in (candidate, other))
    return compare(label, what, ours, theirs, other.name, floor)


def _sets_asked(rule: Rule, side: Side) -> set[str]:
    if rule.set == ALL_RETRIEVAL:
        return side.sets(rule.metric, "retrieval", rule.head)
    return {rule.set} & side.sets(rule.metric, head=rule.head)


def _what(rule: Rule, sets: set[str]) -> Phrase:
    head = {DENSE: ("", ""), "hybrid": (", hybrid", ", гибрид")}.get(
        rule.head, (f", {rule.head} head", f", голова {rule.head}")
    )
    metric = ("main score", "основная метрика") if rule.metric == "main" else (rule.metric, rule.metric)
    en, ru = (f"({name}{of})" for name, of in zip(metric, head, strict=True))
    if rule.set != ALL_RETRIEVAL:
        return Phrase(f"{rule.set} {en}", f"{rule.set} {ru}")
    if not sets:
        return Phrase(f"any retrieval set {en}", f"Любой набор поиска {ru}")
    mean = mean_over(len(sets), "retrieval set", "поиска")
    return Phrase(f"{mean.en} {en}", f"{mean.ru} {ru}")


def mean_over(count: int, kind: str, of: str = "") -> Phrase:
    """What a mean over sets is called."""
    one = count % 10 == 1 and count % 100 != 11
    ru = f"Среднее по {count} {'набору' if one else 'наборам'} {of}".rstrip()
    return Phrase(f"The mean over {count} {kind}{'s' if count > 1 else ''}", ru)


def _is_plain(row: Mapping[str, Any]) -> bool:
    return not str(row.get("runtime") or "torch").startswith("onnx")


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["set"]), str(row.get("head") or DENSE)


def _dim(row: Mapping[str, Any]) -> int:
    return int(row.get("dim") or 0)


def _score(row: Mapping[str, Any]) -> Score:
    value = row.get("value")
    number = math.nan if value is None else float(value)
    set_, head = _place(row)
    return Score(set_, str(row.get("kind") or ""), row["metric"], bool(row.get("main")), number, head)

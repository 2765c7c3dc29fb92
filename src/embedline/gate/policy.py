"""What a rule compares: one side's scores, and the sentence a comparison ends in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from embedline.config.outcome import Rule

ALL_RETRIEVAL = "*"
DENSE = "dense"
TOLERANCE = 1e-9  # 0.51 - 0.01 is not 0.50 in binary; a drop of exactly the allowed size passes


@dataclass(frozen=True)
class Reason:
    """One check: which rule, whether it holds, and one sentence with the numbers."""

    rule: str
    passed: bool
    text: str


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
            reasons.append(Reason(f"{label}.{name}", True, text))
            continue
        floor = -change if name == "max_drop" else change
        reasons.append(_against(f"{label}.{name}", rule, candidate, other, floor))
    return reasons


def compare(label: str, what: str, ours: float, theirs: float, other: str, floor: float) -> Reason:
    """Whether `ours - theirs` is at least `floor` (negative: a drop that is allowed)."""
    passed = ours - theirs >= floor - TOLERANCE  # false when either is not a number
    change = ours - theirs
    moved = f"a gain of {change:.4f}" if change >= 0 else f"a drop of {-change:.4f}"
    asked = (
        f"a gain of at least {floor:.4f} is required"
        if floor > 0
        else f"a drop of {-floor + 0.0:.4f} is allowed"
    )
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        moved = "not comparable"
        passed = False
    text = f"{what} of the candidate is {ours:.4f} and of the {other} {theirs:.4f}: {moved}, {asked}."
    return Reason(label, passed, text)


def _at_least(label: str, rule: Rule, candidate: Side, bar: float) -> Reason:
    sets = _sets_asked(rule, candidate)
    if not sets:
        return Reason(
            label, False, f"The candidate has no score for {_what(rule, sets)}; {bar:.4f} is required."
        )
    value = candidate.mean(sets, rule.metric, rule.head)
    passed = math.isfinite(value) and value >= bar - TOLERANCE
    text = f"{_what(rule, sets)} of the candidate is {value:.4f}; at least {bar:.4f} is required."
    return Reason(label, passed, text)


def _against(label: str, rule: Rule, candidate: Side, other: Side, floor: float) -> Reason:
    sets = _sets_asked(rule, candidate) & _sets_asked(rule, other)
    if not sets:
        without = [s.name for s in (candidate, other) if not _sets_asked(rule, s)]
        missing = f"the {' and the '.join(without)} has" if without else "candidate and other side have"
        common = "no score" if without else "no set in common"
        text = f"{missing[:1].upper()}{missing[1:]} {common} for {_what(rule, sets)}: nothing to compare."
        return Reason(label, False, text)
    ours, theirs = (side.mean(sets, rule.metric, rule.head) for side in (candidate, other))
    return compare(label, _what(rule, sets), ours, theirs, other.name, floor)


def _sets_asked(rule: Rule, side: Side) -> set[str]:
    if rule.set == ALL_RETRIEVAL:
        return side.sets(rule.metric, "retrieval", rule.head)
    return {rule.set} & side.sets(rule.metric, head=rule.head)


def _what(rule: Rule, sets: set[str]) -> str:
    metric = "main score" if rule.metric == "main" else rule.metric
    metric += "" if rule.head == DENSE else f", {rule.head} head" if rule.head != "hybrid" else ", hybrid"
    if rule.set != ALL_RETRIEVAL:
        return f"{rule.set} ({metric})"
    count = f"{len(sets)} retrieval set{'s' if len(sets) > 1 else ''}" if sets else "any retrieval set"
    return f"The mean over {count} ({metric})" if sets else f"{count} ({metric})"


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

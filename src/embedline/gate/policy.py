"""The checks that rules require: one score against a bar, or against another model's score."""

from __future__ import annotations

import math

from embedline.artifacts.scores import DENSE
from embedline.config.gate import Rule
from embedline.gate.model_scores import ModelScores
from embedline.gate.reason import Code, Reason, ScoreName

ALL_RETRIEVAL = "*"
TOLERANCE = 1e-9  # 0.51 - 0.01 is not 0.50 in binary; a drop of exactly the allowed size passes


def check_rule(label: str, rule: Rule, candidate: ModelScores, other: ModelScores | None) -> list[Reason]:
    """Check one rule: one reason for `min`, one for each comparison with `other`.

    Args:
        label: the rule's name in the verdict.
        other: scores of the model that `rule.against` names; None when there is no such model.
    """
    reasons = []
    if rule.min is not None:
        reasons.append(_check_min(f"{label}.min", rule, candidate, rule.min))
    for code, bar in ((Code.MAX_DROP, rule.max_drop), (Code.MIN_GAIN, rule.min_gain)):
        if bar is None:
            continue
        if other is None:
            against = str(rule.against)
            reasons.append(Reason(f"{label}.{code}", True, Code.NO_MODEL, against=against, note="unchecked"))
        else:
            reasons.append(_check_change(f"{label}.{code}", rule, candidate, other, code, bar))
    return reasons


def compare(
    label: str, score: ScoreName, candidate: float, other: float, against: str, code: Code, bar: float
) -> Reason:
    """Check that the candidate's drop is at most, or its gain at least, `bar`.

    Args:
        code: `MAX_DROP` or `MIN_GAIN`, which is how `bar` is meant.
    """
    floor = -bar if code is Code.MAX_DROP else bar
    comparable = math.isfinite(candidate) and math.isfinite(other)
    passed = comparable and candidate - other >= floor - TOLERANCE
    return Reason(label, passed, code, score, against, candidate, other, bar)


def _check_min(label: str, rule: Rule, candidate: ModelScores, bar: float) -> Reason:
    sets = _sets_of(rule, candidate)
    score = _score_name(rule, sets)
    if not sets:
        return Reason(label, False, Code.MIN_WITHOUT_SCORE, score, bar=bar)
    value = candidate.mean(sets, rule.metric, rule.head)
    passed = math.isfinite(value) and value >= bar - TOLERANCE
    return Reason(label, passed, Code.MIN, score, candidate=value, bar=bar)


def _check_change(
    label: str, rule: Rule, candidate: ModelScores, other: ModelScores, code: Code, bar: float
) -> Reason:
    sets = _sets_of(rule, candidate) & _sets_of(rule, other)
    score = _score_name(rule, sets)
    if not sets:
        without = tuple(scores.model for scores in (candidate, other) if not _sets_of(rule, scores))
        code = Code.NO_SCORE if without else Code.NO_COMMON_SET
        return Reason(label, False, code, score, other.model, without=without)
    ours, theirs = (scores.mean(sets, rule.metric, _head(rule, scores)) for scores in (candidate, other))
    return compare(label, score, ours, theirs, other.model, code, bar)


def _sets_of(rule: Rule, scores: ModelScores) -> set[str]:
    """Return the sets of a rule that a model was scored on; none if the score of one in a list is missing."""
    if rule.set == ALL_RETRIEVAL:
        return scores.sets(rule.metric, "retrieval", _head(rule, scores))
    named = {rule.set} if isinstance(rule.set, str) else set(rule.set)
    return named if named <= scores.sets(rule.metric, head=_head(rule, scores)) else set()


def _head(rule: Rule, scores: ModelScores) -> str:
    """Return the head that a rule compares; BM25 has one way to score, whatever the candidate's head."""
    return DENSE if scores.model == "bm25" else rule.head


def _score_name(rule: Rule, sets: set[str]) -> ScoreName:
    if rule.set == ALL_RETRIEVAL:
        return ScoreName(kind="retrieval", count=len(sets), metric=rule.metric, head=rule.head)
    if not isinstance(rule.set, str):
        return ScoreName(count=len(set(rule.set)), metric=rule.metric, head=rule.head)
    return ScoreName(set=rule.set, metric=rule.metric, head=rule.head)

"""The reasons of a verdict as codes, numbers and names. The sentences are made elsewhere."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """The finding of a check; each code has one sentence in English and in Russian."""

    GATE_OFF = "gate_off"
    NO_RULES = "no_rules"
    NOT_A_NUMBER = "not_a_number"
    ALREADY_CHAMPION = "already_champion"
    NO_MODEL = "no_model"
    MIN = "min"
    MIN_WITHOUT_SCORE = "min_without_score"
    MAX_DROP = "max_drop"
    MIN_GAIN = "min_gain"
    NO_SCORE = "no_score"
    NO_COMMON_SET = "no_common_set"
    PARITY_HOLDS = "parity_holds"
    PARITY_FAILS = "parity_fails"
    PARITY_NOT_MEASURED = "parity_not_measured"


@dataclass(frozen=True)
class ScoreName:
    """The score that a check is about.

    Args:
        set: name of one set; empty for a mean over sets.
        kind: kind of the sets that a mean is over; empty for sets of any kind.
        count: how many sets the mean is over; 0 when there is none.
        metric: main, or a metric's name; empty when the rule names no metric.
        head: of the model; dense when the rule names none.
    """

    set: str = ""
    kind: str = ""
    count: int = 0
    metric: str = ""
    head: str = ""


@dataclass(frozen=True)
class Reason:
    """One check of the gate.

    Args:
        rule: the setting that requires it, as `rules.0.min`.
        passed: whether the check holds.
        code: what was found.
        score: which score was checked.
        against: the model that the candidate is compared with.
        candidate, other: the score of the candidate, and of `against`; 0..1.
        bar: lowest score (`min`), largest allowed drop (`max_drop`) or smallest required gain (`min_gain`).
        without: the models that have no such score.
    """

    rule: str
    passed: bool
    code: Code
    score: ScoreName | None = None
    against: str = ""
    candidate: float | None = None
    other: float | None = None
    bar: float | None = None
    without: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """The candidate's score minus that of `against`; not a number when one of them is none."""
        if self.candidate is None or self.other is None:
            return math.nan
        return self.candidate - self.other

    def as_json(self) -> dict[str, Any]:
        """Return the fields that the code fills, as verdict.json holds them; null for what is no number."""
        filled = {name: value for name, value in asdict(self).items() if value not in (None, "", ())}
        return {name: None if _is_no_number(value) else value for name, value in filled.items()}


def _is_no_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)

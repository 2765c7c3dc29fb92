"""The reasons of a verdict as codes, numbers and names. The sentences are made elsewhere."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

Note = Literal["", "warning", "unchecked"]


class Code(StrEnum):
    """The finding of a check; each code has one sentence in English and in Russian."""

    GATE_OFF = "gate_off"
    NO_RULES = "no_rules"
    NO_SETS = "no_sets"
    SWITCHED_OFF = "switched_off"
    NOT_A_NUMBER = "not_a_number"
    ALREADY_CHAMPION = "already_champion"
    NO_MODEL = "no_model"
    MIN = "min"
    MIN_WITHOUT_SCORE = "min_without_score"
    MAX_DROP = "max_drop"
    MIN_GAIN = "min_gain"
    BASELINE = "baseline"
    NO_SCORE = "no_score"
    NO_COMMON_SET = "no_common_set"
    NOT_COLLAPSED = "not_collapsed"
    COLLAPSED = "collapsed"
    TOO_FEW_TEXTS = "too_few_texts"
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
class Spread:
    """How far the vectors of a model are spread.

    Args:
        texts: unrelated texts that were embedded.
        mean_cosine: of the pairs of different texts.
        effective_rank: number of dimensions that the vectors use.
        dims: largest effective rank that was possible: the width of the vectors, or `texts` if lower.
    """

    texts: int = 0
    mean_cosine: float = math.nan
    effective_rank: float = math.nan
    dims: int = 0

    @property
    def share(self) -> float:
        """Return the effective rank as a share (0..1) of the largest possible one."""
        return self.effective_rank / self.dims if self.dims else math.nan


@dataclass(frozen=True)
class Reason:
    """One check of the gate.

    Args:
        rule: the setting that requires it, as `rules.0.min`.
        passed: whether the check lets the candidate pass.
        code: what was found.
        score: which score was checked.
        against: the model that the candidate is compared with.
        candidate, other: the score of the candidate, and of `against`; 0..1.
        bar: lowest score (`min`), largest allowed drop (`max_drop`) or smallest required gain (`min_gain`).
        without: the models that have no such score.
        spread: of the candidate's vectors.
        note: warning (it does not hold, and does not refuse) or unchecked (there was nothing to compare).
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
    spread: Spread | None = None
    note: Note = ""

    @property
    def change(self) -> float:
        """The candidate's score minus that of `against`; not a number when one of them is none."""
        if self.candidate is None or self.other is None:
            return math.nan
        return self.candidate - self.other

    def as_json(self) -> dict[str, Any]:
        """Return the fields that the code fills, as verdict.json holds them; null for what is no number."""
        filled = {name: value for name, value in asdict(self).items() if value not in (None, "", ())}
        return {name: _finite(value) for name, value in filled.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The outcome of a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What the line does with a candidate.

    PASSED and REFUSED follow from rules about scores. NOT_JUDGED: no rule about scores was checked (no
    evaluation set, no rule, or `gate.mode: off`); the candidate is registered, and no alias moves by itself.
    """

    PASSED = "passed"
    REFUSED = "refused"
    NOT_JUDGED = "not judged"


def outcome_of(verdict: Mapping[str, Any]) -> Outcome:
    """Return the outcome in the content of verdict.json; older files hold only `passed`."""
    if "outcome" in verdict:
        return Outcome(verdict["outcome"])
    return Outcome.PASSED if verdict["passed"] else Outcome.REFUSED

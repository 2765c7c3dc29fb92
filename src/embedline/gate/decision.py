"""The gate's decision: pure, from score rows and a policy to a verdict with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedline.artifacts.scores import ScoreRow
from embedline.config.gate import GateConfig
from embedline.gate.default_rules import BELOW_BM25, check_defaults
from embedline.gate.model_scores import ModelScores
from embedline.gate.outcome import Outcome
from embedline.gate.policy import check_rule, compare
from embedline.gate.reason import Code, Reason, ScoreName

CHAMPION_RULE, PARITY_RULE = "max_drop_vs_champion", "require_parity"
_ONLY_MIN = {"max_drop": None, "min_gain": None, "against": None}


@dataclass(frozen=True)
class Verdict:
    """The decision.

    Args:
        outcome: what the line acts on; in the mode dry_run a refusal becomes a pass.
        reasons: one a check, in the order of the settings.
        would_pass: whether the candidate passes when the mode is enforce.
        already_champion: the candidate is the champion, byte for byte.
    """

    outcome: Outcome
    mode: str
    reasons: tuple[Reason, ...]
    would_pass: bool
    already_champion: bool = False

    @property
    def passed(self) -> bool:
        """Return whether the candidate was judged and may become the champion."""
        return self.outcome is Outcome.PASSED


def decide(
    scores: Sequence[ScoreRow],
    parity: bool | None,
    config: GateConfig,
    champion_present: bool,
    base_present: bool,
    *,
    candidate_digest: str | None = None,
    champion_digest: str | None = None,
) -> Verdict:
    """Decide whether the candidate may become the champion.

    It is judged when at least one rule about scores was checked: one of `config`, the comparison with the
    champion, or a default rule other than the warning. Otherwise it can be refused (by parity), not passed.

    >>> row = ScoreRow(model="candidate", set="faq", kind="retrieval", metric="ndcg@10", main=True, value=0.7)
    >>> config = GateConfig(rules=[{"set": "faq", "min": 0.6}])
    >>> decide([row], parity=True, config=config, champion_present=False, base_present=False).passed
    True

    Args:
        scores: score rows of all models.
        parity: whether the exported models agree with torch; None when that was not measured.
        champion_present, base_present: whether there is such a model to compare with.
        candidate_digest, champion_digest: of the models; taken from their rows when None. Equal digests, not
            equal scores, make the candidate the champion.
    """
    candidate = ModelScores.of("candidate", scores)
    others = {name: ModelScores.of(name, scores) for name in ("base", "champion", "bm25", "untrained")}
    present: dict[str, ModelScores | None] = {
        **others,
        "base": others["base"] if base_present else None,
        "champion": others["champion"] if champion_present else None,
    }
    digests = {candidate_digest} if candidate_digest else candidate.digests
    champion_digests = {champion_digest} if champion_digest else others["champion"].digests
    same = champion_present and bool(digests) and digests == champion_digests
    if config.mode == "off":
        off = Reason("mode", True, Code.GATE_OFF, note="unchecked")
        return Verdict(Outcome.NOT_JUDGED, config.mode, (off,), False, same)

    checks: list[Reason] = []
    for index, rule in enumerate(config.rules):
        label = f"rules.{index}"
        if same and rule.against == "champion":
            checks.append(Reason(label, True, Code.ALREADY_CHAMPION, note="unchecked"))
            if rule.min is not None:
                checks += check_rule(label, rule.model_copy(update=_ONLY_MIN), candidate, None)
        else:
            checks += check_rule(label, rule, candidate, present[rule.against] if rule.against else None)
    if config.max_drop_vs_champion is not None:
        checks.append(_check_champion(config.max_drop_vs_champion, candidate, present["champion"], same))
    scored = {name: scores or ModelScores(name, (), frozenset()) for name, scores in present.items()}
    checks += check_defaults(candidate, scored, config.without)

    judged = any(not reason.note for reason in checks if reason.rule != BELOW_BM25)
    parity_checks = [_check_parity(parity)] if config.require_parity else []
    reasons = [*_not_numbers(candidate), *checks, *parity_checks]
    holds = all(reason.passed for reason in reasons)
    if holds or config.mode == "dry_run":
        outcome = Outcome.PASSED if judged else Outcome.NOT_JUDGED
    else:
        outcome = Outcome.REFUSED
    if not judged:
        code = Code.NO_RULES if candidate.sets() else Code.NO_SETS
        reasons.append(Reason("rules", True, code, note="unchecked"))
    return Verdict(outcome, config.mode, tuple(reasons), holds and judged, same)


def _not_numbers(candidate: ModelScores) -> list[Reason]:
    """Return one failed reason for each set whose main score is not a finite number."""
    broken = sorted({row.set for row in candidate.rows if row.main and not math.isfinite(row.value)})
    return [Reason("scores", False, Code.NOT_A_NUMBER, ScoreName(set=name)) for name in broken]


def _check_champion(
    allowed: float, candidate: ModelScores, champion: ModelScores | None, same: bool
) -> Reason:
    """Compare means over the sets that both have; a candidate without any set has nothing to compare."""
    if champion is None:
        return Reason(CHAMPION_RULE, True, Code.NO_MODEL, against="champion", note="unchecked")
    if same:
        return Reason(CHAMPION_RULE, True, Code.ALREADY_CHAMPION, note="unchecked")
    if not candidate.sets():
        without = ("candidate",)
        return Reason(CHAMPION_RULE, True, Code.NO_SCORE, ScoreName(), without=without, note="unchecked")
    kind, sets = candidate.common_sets(champion)
    if not sets:
        return Reason(CHAMPION_RULE, False, Code.NO_COMMON_SET, against="champion")
    score = ScoreName(kind=kind, count=len(sets))
    means = candidate.mean(sets), champion.mean(sets)
    return compare(CHAMPION_RULE, score, *means, "champion", Code.MAX_DROP, allowed)


def _check_parity(parity: bool | None) -> Reason:
    if parity is None:
        return Reason(PARITY_RULE, False, Code.PARITY_NOT_MEASURED)
    return Reason(PARITY_RULE, parity, Code.PARITY_HOLDS if parity else Code.PARITY_FAILS)

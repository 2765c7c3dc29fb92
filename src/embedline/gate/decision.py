"""The gate's decision: pure, from score rows and a policy to a verdict with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedline.artifacts.scores import ScoreRow
from embedline.config.gate import GateConfig
from embedline.gate.model_scores import ModelScores
from embedline.gate.policy import check_rule, compare
from embedline.gate.reason import Code, Reason, ScoreName

CHAMPION_RULE, PARITY_RULE = "max_drop_vs_champion", "require_parity"
_ONLY_MIN = {"max_drop": None, "min_gain": None, "against": None}


@dataclass(frozen=True)
class Verdict:
    """The decision.

    Args:
        passed: what the line acts on; always true in the modes dry_run and off.
        reasons: one a check, in the order of the settings.
        would_pass: whether every check holds, whatever the mode.
        already_champion: the candidate is the champion, byte for byte.
    """

    passed: bool
    mode: str
    reasons: tuple[Reason, ...]
    would_pass: bool
    already_champion: bool = False


def decide(
    scores: Sequence[ScoreRow],
    parity: bool | None,
    config: GateConfig,
    champion_present: bool,
    base_present: bool,
    *,
    champion_digest: str | None = None,
) -> Verdict:
    """Decide whether the candidate may become the champion.

    >>> row = ScoreRow(model="candidate", set="faq", kind="retrieval", metric="ndcg@10", main=True, value=0.7)
    >>> config = GateConfig(rules=[{"set": "faq", "min": 0.6}])
    >>> decide([row], parity=True, config=config, champion_present=False, base_present=False).passed
    True

    Args:
        scores: score rows of all models.
        parity: whether the exported models agree with torch; None when that was not measured.
        champion_present, base_present: whether there is such a model to compare with.
        champion_digest: of the champion; taken from its rows when None.
    """
    if config.mode == "off":
        return Verdict(True, config.mode, (Reason("mode", True, Code.GATE_OFF),), True)
    candidate = ModelScores.of("candidate", scores)
    others = {name: ModelScores.of(name, scores) for name in ("base", "champion", "bm25", "untrained")}
    present: dict[str, ModelScores | None] = {
        **others,
        "base": others["base"] if base_present else None,
        "champion": others["champion"] if champion_present else None,
    }
    champion_digests = {champion_digest} if champion_digest else others["champion"].digests
    same = champion_present and bool(candidate.digests) and candidate.digests == champion_digests

    reasons = _not_numbers(candidate)
    for index, rule in enumerate(config.rules):
        label = f"rules.{index}"
        if same and rule.against == "champion":
            reasons.append(Reason(label, True, Code.ALREADY_CHAMPION))
            if rule.min is not None:
                reasons += check_rule(label, rule.model_copy(update=_ONLY_MIN), candidate, None)
        else:
            reasons += check_rule(label, rule, candidate, present[rule.against] if rule.against else None)
    if config.max_drop_vs_champion is not None:
        reasons.append(_check_champion(config.max_drop_vs_champion, candidate, present["champion"], same))
    if config.require_parity:
        reasons.append(_check_parity(parity))
    if not reasons:
        reasons.append(Reason("rules", True, Code.NO_RULES))
    holds = all(reason.passed for reason in reasons)
    return Verdict(holds or config.mode == "dry_run", config.mode, tuple(reasons), holds, same)


def _not_numbers(candidate: ModelScores) -> list[Reason]:
    """Return one failed reason for each set whose main score is not a finite number."""
    broken = sorted({row.set for row in candidate.rows if row.main and not math.isfinite(row.value)})
    return [Reason("scores", False, Code.NOT_A_NUMBER, ScoreName(set=name)) for name in broken]


def _check_champion(
    allowed: float, candidate: ModelScores, champion: ModelScores | None, same: bool
) -> Reason:
    """Compare means over the retrieval sets that both have; without any, over all sets that both have."""
    if champion is None:
        return Reason(CHAMPION_RULE, True, Code.NO_MODEL, against="champion")
    if same:
        return Reason(CHAMPION_RULE, True, Code.ALREADY_CHAMPION)
    kind, sets = "retrieval", candidate.sets(kind="retrieval") & champion.sets(kind="retrieval")
    if not sets:
        kind, sets = "", candidate.sets() & champion.sets()
    if not sets:
        return Reason(CHAMPION_RULE, False, Code.NO_COMMON_SET, against="champion")
    score = ScoreName(kind=kind, count=len(sets))
    means = candidate.mean(sets), champion.mean(sets)
    return compare(CHAMPION_RULE, score, *means, "champion", Code.MAX_DROP, allowed)


def _check_parity(parity: bool | None) -> Reason:
    if parity is None:
        return Reason(PARITY_RULE, False, Code.PARITY_NOT_MEASURED)
    return Reason(PARITY_RULE, parity, Code.PARITY_HOLDS if parity else Code.PARITY_FAILS)

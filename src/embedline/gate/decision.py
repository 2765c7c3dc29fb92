"""The gate's decision: pure, from score rows and a policy to a verdict with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedline.config.gate import GateConfig
from embedline.gate.policy import Reason, Side, check_rule, compare, mean_over


@dataclass(frozen=True)
class Verdict:
    """The decision.

    Args:
        passed: what the line acts on; always true in the modes dry_run and off.
        would_pass: what the rules say, whatever the mode.
        already_champion: the candidate is the champion, byte for byte.
    """

    passed: bool
    mode: str
    reasons: tuple[Reason, ...]
    would_pass: bool
    already_champion: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The content of verdict.json."""
        return {**asdict(self), "reasons": [asdict(reason) for reason in self.reasons]}


def decide(
    scores: Sequence[Mapping[str, Any]],
    parity: Mapping[str, Any],
    config: GateConfig,
    champion_present: bool,
    base_present: bool,
    *,
    champion_digest: str | None = None,
) -> Verdict:
    """Whether the candidate may become the champion.

    Args:
        scores: score rows of all models.
        parity: of the exported models; `passed` is what counts. Empty when nothing was exported.
        champion_present, base_present: whether there is such a model to compare with.
        champion_digest: of the champion, for the case that nobody scored it again; else taken from its rows.
    """
    if config.mode == "off":
        off = Reason("mode", True, "The gate is off.", "Проверка выключена.")
        return Verdict(True, config.mode, (off,), True)
    candidate = Side("candidate", scores)
    others = {name: Side(name, scores) for name in ("base", "champion", "bm25", "untrained")}
    present: dict[str, Side | None] = {
        **others,
        "base": others["base"] if base_present else None,
        "champion": others["champion"] if champion_present else None,
    }
    champion_digests = {champion_digest} if champion_digest else others["champion"].digests
    same = champion_present and bool(candidate.digests) and candidate.digests == champion_digests

    reasons = _numbers(candidate)
    for index, rule in enumerate(config.rules):
        label = f"rules.{index}"
        if same and rule.against == "champion":
            reasons += _already_champion(label)
            if rule.min is not None:
                reasons += check_rule(label, rule.model_copy(update=_ONLY_MIN), candidate, None)
        else:
            reasons += check_rule(label, rule, candidate, present[rule.against] if rule.against else None)
    if config.max_drop_vs_champion is not None:
        reasons += _champion(config.max_drop_vs_champion, candidate, present["champion"], same)
    if config.require_parity:
        reasons.append(_parity(parity))
    if not reasons:
        reasons.append(Reason("rules", True, "No rule asks for anything.", "Правил нет, проверять нечего."))
    holds = all(reason.passed for reason in reasons)
    return Verdict(holds or config.mode == "dry_run", config.mode, tuple(reasons), holds, same)


_ONLY_MIN = {"max_drop": None, "min_gain": None, "against": None}


def _numbers(candidate: Side) -> list[Reason]:
    broken = sorted({s.set for s in candidate.scores if s.main and not math.isfinite(s.value)})
    return [
        Reason(
            "scores",
            False,
            f"The candidate's score on {name} is not a number.",
            f"Оценка кандидата на {name} не является числом.",
        )
        for name in broken
    ]


def _already_champion(label: str) -> list[Reason]:
    return [
        Reason(
            label,
            True,
            "The candidate is already champion: there is nothing to compare.",
            "Кандидат и есть чемпион: сравнивать нечего.",
        )
    ]


def _champion(allowed: float, candidate: Side, champion: Side | None, same: bool) -> list[Reason]:
    """The mean over the retrieval sets that both have; without any, over all sets that both have."""
    label = "max_drop_vs_champion"
    if champion is None:
        text = "There is no champion to compare with: not applicable."
        return [Reason(label, True, text, "Нет чемпиона, сравнивать не с чем: правило неприменимо.")]
    if same:
        return _already_champion(label)
    sets = candidate.sets(kind="retrieval") & champion.sets(kind="retrieval")
    what = mean_over(len(sets), "retrieval set", "поиска")
    if not sets:
        sets = candidate.sets() & champion.sets()
        what = mean_over(len(sets), "set")
    if not sets:
        text = "Candidate and champion have no scored set in common: nothing to compare."
        return [Reason(label, False, text, "У кандидата и чемпиона нет общих наборов, сравнивать нечего.")]
    return [compare(label, what, candidate.mean(sets), champion.mean(sets), "champion", -allowed)]


def _parity(parity: Mapping[str, Any]) -> Reason:
    label = "require_parity"
    if "passed" not in parity:
        text = "No parity of the exported model was measured."
        return Reason(label, False, text, "Совпадение экспортированной модели не измерено.")
    if parity["passed"] is True:
        text = "The exported models agree with torch."
        return Reason(label, True, text, "Экспортированные модели совпадают с torch.")
    return Reason(
        label,
        False,
        "The exported models do not agree with torch; parity.json has the numbers.",
        "Экспортированные модели расходятся с torch; числа в parity.json.",
    )

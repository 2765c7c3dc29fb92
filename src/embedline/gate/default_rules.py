"""The rules that hold in every run, unless `gate.without` names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from embedline.gate.model_scores import ModelScores
from embedline.gate.policy import compare
from embedline.gate.reason import Code, Reason, ScoreName

BELOW_BASE, BELOW_UNTRAINED = "below_base", "below_untrained"
COLLAPSED, BELOW_BM25 = "collapsed", "below_bm25"

# Measured on 300 passages each of five documentation and news sets. multilingual-e5-small, which was trained
# at a temperature of 0.01: cosine 0.78 to 0.83, share 0.51 to 0.60. The same architecture with random
# weights: 0.979 to 0.989, 0.15 to 0.20. Models of 64 dims on generated text: 0.26 to 0.61 and 0.26 to 0.66;
# those that collapsed: 0.977 to 0.9998, 0.02 to 0.12.
MAX_COSINE = 0.95
MIN_SHARE = 0.05
MIN_TEXTS = 10


def check_defaults(
    candidate: ModelScores, others: Mapping[str, ModelScores], without: Collection[str]
) -> list[Reason]:
    """Check that the candidate is not below its baselines and that its vectors are not collapsed.

    Args:
        others: scores of base, untrained and bm25; without rows where there is no such model.
        without: the rules that are switched off.
    """
    base, untrained, bm25 = (others[name] for name in ("base", "untrained", "bm25"))
    checks: dict[str, Callable[[], Reason]] = {
        BELOW_BASE: lambda: _not_below(BELOW_BASE, candidate, base, instead=untrained),
        BELOW_UNTRAINED: lambda: _not_below(BELOW_UNTRAINED, candidate, untrained, instead=base),
        COLLAPSED: lambda: _not_collapsed(candidate),
        BELOW_BM25: lambda: _warning(_not_below(BELOW_BM25, candidate, bm25)),
    }
    return [
        Reason(name, True, Code.SWITCHED_OFF, note="unchecked") if name in without else check()
        for name, check in checks.items()
    ]


def _not_below(
    rule: str, candidate: ModelScores, other: ModelScores, *, instead: ModelScores | None = None
) -> Reason:
    """Compare means over the sets that both models have.

    Args:
        instead: the baseline that a run has in the place of `other`, as only one of the two exists.
    """
    if not other.rows and instead is not None and instead.rows:
        return Reason(rule, True, Code.NO_MODEL, against=other.model, note="unchecked")
    kind, sets = candidate.common_sets(other)
    score = ScoreName(kind=kind, count=len(sets))
    if not sets:
        without = tuple(each.model for each in (candidate, other) if not each.sets())
        code = Code.NO_SCORE if without else Code.NO_COMMON_SET
        return Reason(rule, True, code, score, other.model, without=without, note="unchecked")
    means = candidate.mean(sets), other.mean(sets)
    return replace(
        compare(rule, score, *means, other.model, Code.MAX_DROP, 0.0), code=Code.BASELINE, bar=None
    )


def _not_collapsed(candidate: ModelScores) -> Reason:
    """Check mean cosine and effective rank of the vectors of unrelated texts.

    Either limit alone misses a kind of collapse: vectors around one point keep a high rank in their
    differences, and vectors on a plane can have a mean cosine of 0.
    """
    spread = candidate.spread
    if spread is None or spread.texts < MIN_TEXTS:
        return Reason(COLLAPSED, True, Code.TOO_FEW_TEXTS, spread=spread, bar=MIN_TEXTS, note="unchecked")
    passed = spread.mean_cosine <= MAX_COSINE and spread.share >= MIN_SHARE  # false for what is no number
    code = Code.NOT_COLLAPSED if passed else Code.COLLAPSED
    return Reason(COLLAPSED, passed, code, spread=spread)


def _warning(reason: Reason) -> Reason:
    """Turn a refusal into a warning."""
    return reason if reason.passed else replace(reason, passed=True, note="warning")

"""The gate's decision, case by case, and the law that better scores never lose a pass."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.gate import GateConfig, Rule
from embedline.gate.decision import Verdict, decide


def row(model: str, set_: str, value: float | None, **more: Any) -> dict[str, Any]:
    defaults = {
        "digest": f"digest of {model}",
        "kind": "retrieval",
        "language": "ru",
        "metric": "ndcg@10",
        "main": True,
        "dim": 384,
        "runtime": "torch",
        "head": "dense",
    }
    return {"model": model, "set": set_, "value": value, **defaults, **more}


def judge(
    rows: list[dict[str, Any]],
    rules: list[Rule] | None = None,
    *,
    parity: dict[str, Any] | None = None,
    champion: bool = False,
    base: bool = False,
    champion_digest: str | None = None,
    **config: Any,
) -> Verdict:
    settled = GateConfig(rules=rules or [], **config)
    parity = {"passed": True} if parity is None else parity
    return decide(rows, parity, settled, champion, base, champion_digest=champion_digest)


def rule(set_: str = "docs", **what: Any) -> Rule:
    return Rule(set=set_, **what)


def failed(verdict: Verdict) -> dict[str, str]:
    return {reason.rule: reason.text for reason in verdict.reasons if not reason.passed}


BOTH = [row("candidate", "docs", 0.52), row("champion", "docs", 0.5), row("base", "docs", 0.4)]


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ({"min": 0.5}, True),
        ({"min": 0.52}, True),
        ({"min": 0.5201}, False),
        ({"against": "champion", "max_drop": 0.0}, True),
        ({"against": "champion", "min_gain": 0.02}, True),
        ({"against": "champion", "min_gain": 0.021}, False),
        ({"against": "base", "min_gain": 0.12}, True),
        ({"against": "base", "min_gain": 0.13}, False),
        ({"against": "base", "min_gain": 0.1, "min": 0.6}, False),
        ({"metric": "recall@100", "min": 0.1}, False),
    ],
)
def test_a_rule_on_one_set(asked: dict[str, Any], passes: bool) -> None:
    verdict = judge(BOTH, [rule(**asked)], champion=True, base=True)
    assert verdict.passed is passes
    assert verdict.would_pass is passes


def test_a_drop_of_exactly_the_allowed_size_passes() -> None:
    rows = [row("candidate", "docs", 0.50), row("champion", "docs", 0.51)]
    assert judge(rows, champion=True, max_drop_vs_champion=0.01).passed
    assert not judge(rows, champion=True, max_drop_vs_champion=0.0099).passed


def test_reasons_are_sentences_with_both_numbers() -> None:
    rows = [row("candidate", "docs", 0.5), row("champion", "docs", 0.6)]
    verdict = judge(rows, [rule(min=0.55)], champion=True)
    assert failed(verdict) == {
        "rules.0.min": "docs (main score) of the candidate is 0.5000; at least 0.5500 is required.",
        "max_drop_vs_champion": "The mean over 1 retrieval set of the candidate is 0.5000 and of the "
        "champion 0.6000: a drop of 0.1000, a drop of 0.0100 is allowed.",
    }


def test_the_star_is_the_mean_over_retrieval_sets_that_both_have() -> None:
    rows = [
        row("candidate", "a", 0.6),
        row("candidate", "b", 0.4),
        row("candidate", "only mine", 0.0),
        row("candidate", "sts", 0.0, kind="sts", metric="spearman"),
        row("bm25", "a", 0.5, runtime=None, dim=None, head=None),
        row("bm25", "b", 0.3, runtime=None, dim=None, head=None),
        row("bm25", "only its", 1.0, runtime=None, dim=None, head=None),
    ]
    assert judge(rows, [rule("*", against="bm25", min_gain=0.1)]).passed
    assert not judge(rows, [rule("*", against="bm25", min_gain=0.11)]).passed
    assert judge(rows, [rule("*", min=1 / 3)]).passed
    assert not judge(rows, [rule("*", min=0.34)]).passed


def test_only_the_full_dense_torch_vector_counts() -> None:
    rows = [
        row("candidate", "docs", 0.4),
        row("candidate", "docs", 0.9, dim=64),
        row("candidate", "docs", 0.9, runtime="onnx-int8"),
        row("candidate", "docs", 0.9, head="sparse"),
        row("candidate", "docs", 0.9, metric="recall@10", main=False),
    ]
    assert not judge(rows, [rule(min=0.5)]).passed
    assert judge(rows, [rule(min=0.5, metric="recall@10")]).passed
    lower = [row("candidate", "docs", 0.6), row("candidate", "docs", 0.3, dim=64)]
    assert judge(lower, [rule(min=0.5)]).passed  # what cutting a vector costs is not asked


@pytest.mark.parametrize("other", ["champion", "base"])
def test_without_a_champion_or_base_a_rule_against_it_is_not_applicable(other: str) -> None:
    verdict = judge([row("candidate", "docs", 0.1)], [rule(against=other, min_gain=0.5)])
    assert verdict.passed
    assert "not applicable" in verdict.reasons[0].text


@pytest.mark.parametrize("other", ["bm25", "untrained"])
def test_without_a_yardstick_a_rule_against_it_fails(other: str) -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule(against=other, min_gain=0.0)])
    assert failed(verdict)["rules.0.min_gain"] == (
        f"The {other} has no score for docs (main score): nothing to compare."
    )


def test_a_champion_that_was_not_scored_fails_its_rules() -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule(against="champion", max_drop=0.1)], champion=True)
    assert set(failed(verdict)) == {"rules.0.max_drop", "max_drop_vs_champion"}


def test_a_rule_for_a_set_without_a_score_fails_and_names_it() -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule("typo", min=0.1)])
    assert "no score for typo" in failed(verdict)["rules.0.min"]


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_a_score_that_is_not_a_number_fails_even_unasked(value: float | None) -> None:
    verdict = judge([row("candidate", "docs", 0.9), row("candidate", "other", value)], [rule(min=0.1)])
    assert failed(verdict) == {"scores": "The candidate's score on other is not a number."}


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_a_metric_that_is_not_a_number_is_not_at_least_anything(value: float | None) -> None:
    """No main score, so nothing but the rule looks at it."""
    rows = [
        row("candidate", "docs", 0.9),
        row("candidate", "docs", value, metric="recall@10", main=False),
    ]
    assert set(failed(judge(rows, [rule(min=0.5, metric="recall@10")]))) == {"rules.0.min"}


@pytest.mark.parametrize(("short", "full", "passes"), [(0.3, 0.6, True), (0.9, 0.4, False)])
def test_vectors_cut_short_are_not_what_a_rule_asks_about(short: float, full: float, passes: bool) -> None:
    for order in (1, -1):
        rows = [row("candidate", "docs", full), row("candidate", "docs", short, dim=64)][::order]
        assert judge(rows, [rule(min=0.5)]).passed == passes
        others = [row("champion", "docs", 0.5), row("champion", "docs", 0.1, dim=64)][::order]
        met = judge([*rows, *others], champion=True, max_drop_vs_champion=0.0)
        assert met.passed == passes, "side by side at their full widths"


def test_of_two_scores_of_one_set_the_lower_one_counts() -> None:
    for values in ((0.4, 0.9), (0.9, 0.4)):
        rows = [row("candidate", "docs", value) for value in values]
        assert "0.4000" in failed(judge(rows, [rule(min=0.5)]))["rules.0.min"]


@pytest.mark.parametrize("side", ["candidate", "champion"])
def test_a_comparison_with_not_a_number_fails(side: str) -> None:
    rows = [row("candidate", "docs", 0.9), row("champion", "docs", 0.1)]
    rows = [{**r, "value": math.nan} if r["model"] == side else r for r in rows]
    verdict = judge(rows, [rule(against="champion", max_drop=1.0)], champion=True)
    assert {"rules.0.max_drop", "max_drop_vs_champion"} <= set(failed(verdict))


def test_without_common_retrieval_sets_the_champion_is_met_on_all_sets() -> None:
    rows = [
        row("candidate", "sts", 0.7, kind="sts", metric="spearman"),
        row("champion", "sts", 0.8, kind="sts", metric="spearman"),
    ]
    assert not judge(rows, champion=True).passed
    assert judge(rows, champion=True, max_drop_vs_champion=0.1).passed
    assert judge(rows, champion=True, max_drop_vs_champion=None).passed
    nothing_common = [row("candidate", "a", 0.7), row("champion", "b", 0.1)]
    assert "in common" in failed(judge(nothing_common, champion=True))["max_drop_vs_champion"]


@pytest.mark.parametrize("known_by", ["rows", "argument"])
def test_the_champion_itself_is_already_champion(known_by: str) -> None:
    rows = [row("candidate", "docs", 0.5, digest="same")]
    rows += [row("champion", "docs", 0.9, digest="same")] if known_by == "rows" else []
    digest = "same" if known_by == "argument" else None
    asked = [rule(against="champion", min_gain=0.1, min=0.4)]
    verdict = judge(rows, asked, champion=True, champion_digest=digest)
    assert verdict.passed
    assert verdict.already_champion
    assert [r.text for r in verdict.reasons if "already champion" in r.text]
    assert failed(
        judge(rows, [rule(against="champion", min_gain=0.1, min=0.6)], champion=True, champion_digest=digest)
    )


def test_parity_is_required_unless_it_is_not() -> None:
    assert set(failed(judge(BOTH, parity={"passed": False}))) == {"require_parity"}
    assert set(failed(judge(BOTH, parity={}))) == {"require_parity"}
    assert judge(BOTH, parity={}, require_parity=False).passed


def test_off_passes_and_dry_run_says_what_it_would_have_done() -> None:
    off = judge([], [rule(min=0.9)], mode="off")
    assert (off.passed, [r.text for r in off.reasons]) == (True, ["The gate is off."])
    dry = judge(BOTH, [rule(min=0.9)], mode="dry_run")
    assert (dry.passed, dry.would_pass) == (True, False)
    assert failed(dry)


def test_the_verdict_is_plain_json() -> None:
    import json

    value = json.loads(json.dumps(judge(BOTH, [rule(min=0.9)]).as_dict()))
    assert value["passed"] is False
    assert value["mode"] == "enforce"
    assert value["reasons"][0] == {
        "rule": "rules.0.min",
        "passed": False,
        "text": "docs (main score) of the candidate is 0.5200; at least 0.9000 is required.",
        "ru": "docs (основная метрика): у кандидата 0.5200, нужно не меньше 0.9000.",
    }


SETS = ["a", "b", "c"]
scores_of_a_model = st.dictionaries(st.sampled_from(SETS), st.floats(0, 1), max_size=3)
rules = st.builds(
    lambda set_, against, kind, bar: rule(
        set_, **({"min": bar} if kind == "min" else {"against": against, kind: bar})
    ),
    st.sampled_from([*SETS, "*"]),
    st.sampled_from(["base", "champion", "bm25", "untrained"]),
    st.sampled_from(["min", "max_drop", "min_gain"]),
    st.floats(0, 1),
)


@settings(max_examples=300, deadline=None)
@given(
    candidate=scores_of_a_model,
    others=st.fixed_dictionaries(dict.fromkeys(("base", "champion", "bm25", "untrained"), scores_of_a_model)),
    asked=st.lists(rules, max_size=4),
    rise=st.dictionaries(st.sampled_from(SETS), st.floats(0, 1)),
    flags=st.tuples(st.booleans(), st.booleans()),
    drop=st.none() | st.floats(0, 1),
)
def test_raising_the_candidate_s_scores_never_turns_a_pass_into_a_fail(
    candidate: dict[str, float],
    others: dict[str, dict[str, float]],
    asked: list[Rule],
    rise: dict[str, float],
    flags: tuple[bool, bool],
    drop: float | None,
) -> None:
    def verdict(ours: dict[str, float]) -> Verdict:
        rows = [
            row(name, s, v)
            for name, values in [("candidate", ours), *others.items()]
            for s, v in values.items()
        ]
        return judge(rows, asked, champion=flags[0], base=flags[1], max_drop_vs_champion=drop)

    better = {name: min(1.0, value + rise.get(name, 0.0)) for name, value in candidate.items()}
    if verdict(candidate).passed:
        assert verdict(better).passed


@settings(max_examples=100, deadline=None)
@given(asked=st.lists(rules, max_size=3), candidate=scores_of_a_model)
def test_a_verdict_passes_exactly_when_every_reason_does(
    asked: list[Rule], candidate: dict[str, float]
) -> None:
    verdict = judge([row("candidate", s, v) for s, v in candidate.items()], asked, champion=True, base=True)
    assert verdict.passed == all(reason.passed for reason in verdict.reasons)
    assert all(reason.text.endswith(".") for reason in verdict.reasons)


def test_every_reason_says_the_same_numbers_in_russian() -> None:
    rules = [
        rule(min=0.9),
        rule("*", min=0.1),
        rule("nothing", min=0.1),
        rule(max_drop=0.01, against="champion"),
        rule("*", min_gain=0.2, against="base", head="lexical"),
        rule("nothing", max_drop=0.0, against="champion"),
        rule(min_gain=0.1, against="untrained"),
        rule(max_drop=0.1, against="bm25", metric="map@100"),
    ]
    more = [row("candidate", "docs", 0.3, head="lexical"), row("candidate", "sts", math.nan, kind="sts")]
    verdicts = [
        judge([*BOTH, *more], rules, champion=there, base=there, parity=parity, max_drop_vs_champion=0.02)
        for there in (False, True)
        for parity in ({}, {"passed": True}, {"passed": False})
    ]
    verdicts += [judge(BOTH, require_parity=False), judge(BOTH, mode="off")]
    same = {"champion": True, "champion_digest": "digest of candidate"}
    verdicts.append(judge(BOTH, [rule(max_drop=0.1, against="champion")], **same))
    for reason in (reason for verdict in verdicts for reason in verdict.reasons):
        english, russian = (re.findall(r"\d\.\d{4}", text) for text in (reason.text, reason.ru))
        assert english == russian, reason
        assert re.search("[а-я]", reason.ru), reason


@pytest.mark.parametrize(
    ("count", "words"), [(1, "1 набору"), (2, "2 наборам"), (11, "11 наборам"), (21, "21 набору")]
)
def test_russian_counts_agree(count: int, words: str) -> None:
    rows = [row("candidate", f"set {number}", 0.5) for number in range(count)]
    [reason, *_] = judge(rows, [rule("*", min=0.5)]).reasons
    assert reason.ru.startswith(f"Среднее по {words} поиска (основная метрика): у кандидата 0.5000")

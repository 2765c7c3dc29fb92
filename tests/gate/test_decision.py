"""The gate's decision, case by case, and the law that better scores never lose a pass."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.artifacts.scores import ScoreRow, score_row
from embedline.config.gate import GateConfig, Rule
from embedline.evaluation.reasons import SENTENCES, sentence, verdict_json
from embedline.gate.decision import Verdict, decide
from embedline.gate.outcome import Outcome, outcome_of
from embedline.gate.reason import Code, Reason


def row(model: str, set_: str, value: float | None, **more: Any) -> ScoreRow:
    """A row as scores.jsonl holds it; null stands for what an older file lacks."""
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
    return score_row({"model": model, "set": set_, "value": value, **defaults, **more})


def judge(
    rows: list[ScoreRow],
    rules: list[Rule] | None = None,
    *,
    parity: bool | None = True,
    champion: bool = False,
    base: bool = False,
    candidate_digest: str | None = None,
    champion_digest: str | None = None,
    **config: Any,
) -> Verdict:
    settled = GateConfig(rules=rules or [], **config)
    digests = {"candidate_digest": candidate_digest, "champion_digest": champion_digest}
    return decide(rows, parity, settled, champion, base, **digests)


def rule(set_: str = "docs", **what: Any) -> Rule:
    return Rule(set=set_, **what)


def failed(verdict: Verdict) -> dict[str, str]:
    return {reason.rule: sentence(reason).en for reason in verdict.reasons if not reason.passed}


def spread(
    model: str = "candidate", *, cosine: float, rank: float = 150.0, texts: int = 300
) -> list[ScoreRow]:
    """The rows of a model whose vectors have 384 dims."""
    measured = {"mean_cosine": cosine, "effective_rank": rank}
    return [
        row(model, "unrelated texts", value, metric=metric, main=False, kind="spread", count=texts)
        for metric, value in measured.items()
    ]


def finding(verdict: Verdict, name: str) -> Reason:
    (found,) = [reason for reason in verdict.reasons if reason.rule == name]
    return found


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


def test_star_is_the_mean_over_retrieval_sets_that_both_have() -> None:
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


def test_a_list_is_the_mean_over_its_sets_all_of_which_are_scored() -> None:
    scores = {"one": (0.6, 0.5), "two": (0.3, 0.42), "three": (0.1, 0.9)}
    rows = [
        row(model, name, value, kind="sts")
        for name, values in scores.items()
        for model, value in zip(("candidate", "base"), values, strict=True)
    ]
    two = Rule(set=["one", "two"], against="base", max_drop=0.005)
    (reason, *_) = judge(rows, [two], base=True).reasons  # 0.45 and 0.46
    assert "rules.0.max_drop" in failed(judge(rows, [two], base=True))
    said = sentence(reason)
    assert "mean over 2 sets" in said.en
    assert "реднее по 2 наборам" in said.ru
    assert not failed(
        judge(rows, [two.model_copy(update={"max_drop": 0.011})], base=True, without=["below_base"])
    )
    missing = failed(judge(rows, [two.model_copy(update={"set": ["one", "four"]})], base=True))
    assert "nothing to compare" in missing["rules.0.max_drop"]


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
    verdict = judge([row("candidate", "docs", 0.1)], [rule(against=other, min_gain=0.5), rule(min=0.1)])
    assert verdict.passed
    reason = verdict.reasons[0]
    assert (reason.code, reason.against) == (Code.NO_MODEL, other)
    assert "not applicable" in sentence(reason).en


@pytest.mark.parametrize(("other", "name"), [("bm25", "BM25"), ("untrained", "The untrained model")])
def test_a_rule_against_an_unscored_reference_fails(other: str, name: str) -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule(against=other, min_gain=0.0)])
    assert failed(verdict)["rules.0.min_gain"] == (
        f"{name} has no score for docs (main score): nothing to compare."
    )


def test_a_champion_that_was_not_scored_fails_its_rules() -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule(against="champion", max_drop=0.1)], champion=True)
    assert set(failed(verdict)) == {"rules.0.max_drop", "max_drop_vs_champion"}


def test_a_rule_for_a_set_without_a_score_fails_and_names_it() -> None:
    verdict = judge([row("candidate", "docs", 0.9)], [rule("typo", min=0.1)])
    assert "no score for typo" in failed(verdict)["rules.0.min"]


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_a_score_that_is_not_a_number_fails_without_any_rule(value: float | None) -> None:
    verdict = judge([row("candidate", "docs", 0.9), row("candidate", "other", value)], [rule(min=0.1)])
    assert failed(verdict) == {"scores": "The candidate's score on other is not a number."}


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_a_metric_that_is_not_a_number_fails_its_rule(value: float | None) -> None:
    """No main score, so nothing but the rule looks at it."""
    rows = [
        row("candidate", "docs", 0.9),
        row("candidate", "docs", value, metric="recall@10", main=False),
    ]
    assert set(failed(judge(rows, [rule(min=0.5, metric="recall@10")]))) == {"rules.0.min"}


@pytest.mark.parametrize(("short", "full", "passes"), [(0.3, 0.6, True), (0.9, 0.4, False)])
def test_rules_ignore_scores_of_cut_vectors(short: float, full: float, passes: bool) -> None:
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
    rows = [replace(each, value=math.nan) if each.model == side else each for each in rows]
    verdict = judge(rows, [rule(against="champion", max_drop=1.0)], champion=True)
    assert {"rules.0.max_drop", "max_drop_vs_champion"} <= set(failed(verdict))


def test_without_common_retrieval_sets_all_common_sets_are_compared() -> None:
    rows = [
        row("candidate", "sts", 0.7, kind="sts", metric="spearman"),
        row("champion", "sts", 0.8, kind="sts", metric="spearman"),
    ]
    assert not judge(rows, champion=True).passed
    assert judge(rows, champion=True, max_drop_vs_champion=0.1).passed
    assert not failed(judge(rows, champion=True, max_drop_vs_champion=None))
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
    assert Code.ALREADY_CHAMPION in {reason.code for reason in verdict.reasons}
    assert failed(
        judge(rows, [rule(against="champion", min_gain=0.1, min=0.6)], champion=True, champion_digest=digest)
    )


@pytest.mark.parametrize(
    ("rows", "config"),
    [
        ([row("candidate", "docs", 0.5), row("champion", "docs", 0.6)], {"mode": "off"}),
        ([], {}),
        ([row("candidate", "new", 0.5), row("champion", "old", 0.5)], {}),
        ([row("candidate", "docs", 0.5), row("champion", "docs", 0.9)], {"max_drop_vs_champion": 0.0}),
    ],
    ids=["mode off", "no scores", "no set in common", "a lower score"],
)
def test_the_champion_is_recognised_by_its_digest(rows: Any, config: dict[str, Any]) -> None:
    digests = {"candidate_digest": "same", "champion_digest": "same"}
    verdict = judge(rows, champion=True, **config, **digests)
    assert verdict.already_champion
    assert verdict.outcome is not Outcome.REFUSED
    assert not judge(rows, champion=True, **config, **{**digests, "champion_digest": "x"}).already_champion


def test_parity_is_checked_only_when_required() -> None:
    assert set(failed(judge(BOTH, parity=False))) == {"require_parity"}
    assert set(failed(judge(BOTH, parity=None))) == {"require_parity"}
    assert judge(BOTH, [rule(min=0.1)], parity=None, require_parity=False).passed


def test_off_judges_nothing_and_dry_run_reports_the_real_verdict() -> None:
    off = judge(BOTH, [rule(min=0.1)], mode="off")
    assert (off.outcome, off.passed) == (Outcome.NOT_JUDGED, False)
    assert [sentence(reason).en for reason in off.reasons] == ["The gate is off."]
    dry = judge(BOTH, [rule(min=0.9)], mode="dry_run")
    assert (dry.passed, dry.would_pass) == (True, False)
    assert failed(dry)


def test_verdict_json_holds_codes_numbers_and_sentences() -> None:
    value = json.loads(json.dumps(verdict_json(judge(BOTH, [rule(min=0.9)]))))
    assert value["passed"] is False
    assert value["mode"] == "enforce"
    assert value["reasons"][0] == {
        "rule": "rules.0.min",
        "passed": False,
        "code": "min",
        "score": {"set": "docs", "kind": "", "count": 0, "metric": "main", "head": "dense"},
        "candidate": 0.52,
        "bar": 0.9,
        "text": "docs (main score) of the candidate is 0.5200; at least 0.9000 is required.",
        "ru": "docs (основная метрика): у кандидата 0.5200, требуется не меньше 0.9000.",
    }


def test_a_number_that_is_none_is_null_in_verdict_json() -> None:
    rows = [row("candidate", "docs", math.nan), row("champion", "docs", 0.1)]
    verdict = verdict_json(judge(rows, champion=True))
    assert json.dumps(verdict, allow_nan=False)
    compared = next(reason for reason in verdict["reasons"] if reason["code"] == "max_drop")
    assert (compared["candidate"], compared["other"]) == (None, 0.1)
    assert "not comparable" in compared["text"]


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
def test_higher_candidate_scores_never_turn_a_pass_into_a_fail(
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
    holds = all(reason.passed for reason in verdict.reasons)
    assert verdict.passed == (holds and verdict.outcome is not Outcome.NOT_JUDGED)
    assert (verdict.outcome is Outcome.REFUSED) is not holds
    assert all(text.endswith(".") for reason in verdict.reasons for text in sentence(reason))


def test_every_code_has_a_sentence_with_the_same_numbers_in_russian() -> None:
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
        for parity in (None, True, False)
    ]
    verdicts += [judge(BOTH, require_parity=False), judge(BOTH, mode="off")]
    same = {"champion": True, "champion_digest": "digest of candidate"}
    verdicts.append(judge(BOTH, [rule(max_drop=0.1, against="champion")], **same))
    disjoint = [row("candidate", "a", 0.5), row("bm25", "b", 0.5)]
    verdicts.append(judge(disjoint, [rule("*", min_gain=0.1, against="bm25")]))
    verdicts.append(judge([row("candidate", "a", math.nan)]))
    verdicts.append(judge(BOTH, [rule(min_gain=0.1, against="base")], base=True))
    verdicts.append(judge(BOTH, require_parity=False, max_drop_vs_champion=None))
    verdicts += [judge([]), judge(BOTH, without=["collapsed"])]
    verdicts += [judge([*BOTH, *spread(cosine=cosine)], base=True) for cosine in (0.5, 0.99)]
    reasons: list[Reason] = [reason for verdict in verdicts for reason in verdict.reasons]
    for reason in reasons:
        english, russian = (re.findall(r"\d\.\d{4}", text) for text in sentence(reason))
        assert english == russian, reason
        assert re.search("[а-я]", sentence(reason).ru), reason
        assert "{" not in "".join(sentence(reason))
    assert {reason.code for reason in reasons} == set(Code) == set(SENTENCES)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 поисковому набору"),
        (2, "2 поисковым наборам"),
        (11, "11 поисковым наборам"),
        (21, "21 поисковому набору"),
    ],
)
def test_russian_counts_agree(count: int, words: str) -> None:
    rows = [row("candidate", f"set {number}", 0.5) for number in range(count)]
    [reason, *_] = judge(rows, [rule("*", min=0.5)]).reasons
    assert sentence(reason).ru.startswith(f"Среднее по {words} (основная метрика): у кандидата 0.5000")


@pytest.mark.parametrize("champion", [False, True])
@pytest.mark.parametrize("mode", ["enforce", "dry_run"])
def test_without_sets_nothing_is_judged(champion: bool, mode: str) -> None:
    verdict = judge([], champion=champion, champion_digest="d" if champion else None, mode=mode)
    assert (verdict.outcome, verdict.passed, verdict.would_pass) == (Outcome.NOT_JUDGED, False, False)
    assert not failed(verdict)
    assert sentence(verdict.reasons[-1]) == (
        "No evaluation set was scored: the candidate is not judged.",
        "Ни на одном наборе нет оценок: вердикт по кандидату не вынесен.",
    )


def test_without_sets_a_broken_export_is_refused_and_only_dry_run_lets_it_be() -> None:
    assert judge([], parity=False).outcome is Outcome.REFUSED
    assert judge([], parity=False, mode="dry_run").outcome is Outcome.NOT_JUDGED


def test_sets_without_any_rule_that_judges_are_not_judged() -> None:
    names = ["below_base", "below_untrained", "collapsed", "below_bm25"]
    rows = [*BOTH, *spread(cosine=0.99), row("bm25", "docs", 0.1)]
    verdict = judge(rows, base=True, max_drop_vs_champion=None, without=names)
    assert verdict.outcome is Outcome.NOT_JUDGED
    assert [finding(verdict, name).code for name in names] == [Code.SWITCHED_OFF] * 4
    assert "No rule about scores was checked" in sentence(verdict.reasons[-1]).en
    rows = [row("candidate", "docs", 0.5), row("bm25", "docs", 0.1)]
    assert judge(rows).outcome is Outcome.NOT_JUDGED, "a warning judges nothing"


@pytest.mark.parametrize("name", ["base", "untrained"])
@pytest.mark.parametrize(("ours", "passes"), [(0.5, True), (0.3, True), (0.29, False)])
def test_a_candidate_below_its_baseline_is_refused(name: str, ours: float, passes: bool) -> None:
    rows = [row("candidate", "docs", ours), row(name, "docs", 0.3), row(name, "other", 0.9)]
    verdict = judge(rows, base=name == "base")
    assert verdict.passed is passes
    reason = finding(verdict, f"below_{name}")
    assert (reason.candidate, reason.other, reason.passed) == (ours, 0.3, passes)
    other = "below_untrained" if name == "base" else "below_base"
    assert finding(verdict, other).code is Code.NO_MODEL
    assert judge(rows, base=name == "base", without=[f"below_{name}"]).outcome is Outcome.NOT_JUDGED


def test_a_baseline_counts_over_retrieval_sets_and_over_all_when_there_is_none() -> None:
    sts = {"kind": "sts", "metric": "spearman"}
    rows = [row("candidate", "sts", 0.2, **sts), row("base", "sts", 0.5, **sts)]
    assert not judge(rows, base=True).passed
    assert judge([*rows, row("candidate", "docs", 0.5), row("base", "docs", 0.5)], base=True).passed


@pytest.mark.parametrize(
    ("cosine", "rank", "passes"),
    [
        (0.8327, 157.7, True),  # multilingual-e5-small on 300 Russian passages
        (0.9789, 59.1, False),  # the same architecture with random weights
        (0.9981, 1.5, False),  # a training that collapsed
        (0.0, 2.0, False),  # vectors on a plane
        (0.95, 15.0, True),
        (math.nan, math.nan, False),
    ],
)
def test_collapsed_vectors_are_refused(cosine: float, rank: float, passes: bool) -> None:
    verdict = judge([row("candidate", "docs", 0.5), *spread(cosine=cosine, rank=rank)])
    assert verdict.passed is passes
    assert finding(verdict, "collapsed").passed is passes
    json.dumps(verdict_json(verdict), allow_nan=False)
    rows = [row("candidate", "docs", 0.5), *spread(cosine=cosine, rank=rank)]
    assert judge(rows, [rule(min=0)], without=["collapsed"]).passed


def test_the_spread_of_few_texts_and_of_other_models_is_not_checked() -> None:
    rows = [row("candidate", "docs", 0.5), *spread(cosine=0.99, texts=9), *spread("base", cosine=0.99)]
    assert finding(judge(rows), "collapsed").note == "unchecked"


def test_a_candidate_below_bm25_passes_with_a_warning() -> None:
    rows = [*BOTH, row("bm25", "docs", 0.9)]
    verdict = judge(rows, base=True)
    reason = finding(verdict, "below_bm25")
    assert (verdict.passed, verdict.would_pass) == (True, True)
    assert (reason.passed, reason.note) == (True, "warning")
    assert sentence(reason).en == (
        "The mean over 1 retrieval set of the candidate is 0.5200 and of BM25 0.9000: a drop of 0.3800."
    )
    assert not finding(judge([*BOTH, row("bm25", "docs", 0.1)], base=True), "below_bm25").note


def test_a_baseline_that_was_not_scored_is_named() -> None:
    verdict = judge([row("candidate", "docs", 0.5)], [rule(min=0.1)])
    assert verdict.passed
    for name, text in [("below_base", "The base model"), ("below_untrained", "The untrained model")]:
        assert sentence(finding(verdict, name)).en == f"{text} has no score for any set: nothing to compare."


@pytest.mark.parametrize(
    ("scores", "outcome", "broken"),
    [
        ({"candidate": 0.0, "untrained": 0.026, "bm25": 0.4}, "refused", {"below_untrained", "collapsed"}),
        ({"candidate": 0.025, "base": 0.041, "bm25": 0.325}, "refused", {"below_base"}),
        ({"candidate": 0.004, "base": 0.003, "bm25": 0.778}, "passed", set()),
    ],
)
def test_models_that_should_not_be_shipped(scores: dict[str, float], outcome: str, broken: set[str]) -> None:
    """Collapsed, below a random base, and trained from a base that knows nothing: refused or warned of."""
    rows = [row(model, "docs", value) for model, value in scores.items()]
    rows += spread(cosine=0.998 if "collapsed" in broken else 0.9, rank=30)
    verdict = judge(rows, base="base" in scores)
    assert verdict.outcome.value == outcome
    assert set(failed(verdict)) == broken
    assert finding(verdict, "below_bm25").note == "warning"


def test_an_unknown_default_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="below_bm25"):
        GateConfig(without=["below_bm26"])


def test_verdicts_of_older_versions_have_an_outcome() -> None:
    assert [outcome_of({"passed": passed}) for passed in (True, False)] == [Outcome.PASSED, Outcome.REFUSED]
    assert outcome_of(verdict_json(judge([]))) is Outcome.NOT_JUDGED

"""Scores of one model: found by set, also among those of thousands of sets."""

from __future__ import annotations

from collections.abc import Iterator

from embedline.artifacts.scores import ScoreRow
from embedline.gate.model_scores import ModelScores


class _Rows(tuple[ScoreRow, ...]):
    """Rows that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[ScoreRow]:
        _Rows.passes += 1
        return super().__iter__()


def test_scores_of_many_sets_are_found_without_a_pass_over_all_for_each() -> None:
    rows = [
        ScoreRow(model="candidate", set=f"set-{number}", kind="sts", main=True, metric="spearman", value=0.5)
        for number in range(500)
    ]
    rows.append(ScoreRow(model="candidate", set="set-7", kind="sts", main=True, metric="spearman", value=0.2))
    scores = ModelScores("candidate", _Rows(rows), frozenset())
    _Rows.passes = 0
    names = scores.sets()
    assert len(names) == 500
    assert scores.mean(names) == (499 * 0.5 + 0.2) / 500
    assert scores.find("set-8", head="lexical") is None
    assert _Rows.passes <= 3

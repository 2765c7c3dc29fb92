"""How the benchmark of time to quality reads its curves."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # scripts, not a package

from bench_quality import Result, seconds_until, table


def result(contender: str, seconds_a_step: float) -> Result:
    values = (0.5, 0.52, 0.531, 0.529, 0.551)
    points = [(5 * i * seconds_a_step, 5 * i, value) for i, value in enumerate(values)]
    return Result(contender, 32, False, {16: 2 * seconds_a_step, 32: seconds_a_step}, points)


def test_the_first_point_above_the_gain_counts() -> None:
    points = result("embedline", 2.0).points
    assert seconds_until(points, 0.03) == 20.0
    assert seconds_until(points, 0.05) == 40.0
    assert seconds_until(points, 0.06) is None


def test_the_table_states_how_many_times_as_long_the_others_took() -> None:
    lines = table([result("embedline", 2.0), result("peer", 11.0)]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == "| embedline | 32 | fp32 | 2.0 | 0.500 | 0.551 | 20 s | 40 s |"
    assert lines[3] == "| peer | 32 | fp32 | 11.0 | 0.500 | 0.551 | 110 s (5.5×) | 220 s (5.5×) |"


def test_a_gain_that_was_not_reached_states_the_time_it_had() -> None:
    peer = Result("peer", 0, True, {0: 9.0}, [(0.0, 0, 0.5), (45.0, 5, 0.531)])
    assert table([peer]).splitlines()[2] == (
        "| peer | whole batch | bf16 | 9.0 | 0.500 | 0.531 | 45 s | not in 45 s |"
    )

"""Cron expressions as the pipelines server reads them (robfig/cron 1.2): UTC, seconds first, Sunday is 0."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from embedline.errors import InputError
from embedline.orchestration.schedule import Schedule

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("cron", "following"),
    [
        ("30 4 * * 1", "2026-01-19T04:30:00+00:00"),
        ("15 30 4 * * mon", "2026-01-19T04:30:15+00:00"),
        ("*/20 * * * *", "2026-01-15T10:40:00+00:00"),
        ("30 10 * * *", "2026-01-16T10:30:00+00:00"),  # strictly after now
        ("0 9-17/4 * * 1-5", "2026-01-15T13:00:00+00:00"),
        ("5/10 * * * *", "2026-01-15T10:35:00+00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
        ("0 0 1 FEB,MAR ?", "2026-02-01T00:00:00+00:00"),
        ("0 0 20 * 0", "2026-01-18T00:00:00+00:00"),  # day or weekday, as in crontab(5)
        ("0 0 */2 * 0", "2026-01-25T00:00:00+00:00"),  # day and weekday: one of them begins with *
    ],
)
def test_next_moment_is_the_one_that_the_server_runs_at(cron: str, following: str) -> None:
    schedule = Schedule.read(cron, "")
    assert schedule is not None
    found = schedule.next_after(NOW)
    assert found is not None
    assert found.isoformat() == following
    assert str(schedule).endswith("(UTC)")


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("61 4 * * 1", "the minute '61' cannot be read"),
        ("0 24 * * *", "the hour '24'"),
        ("0 0 0 * *", "the day '0'"),
        ("0 0 1 13 *", "the month '13'"),
        ("0 0 * * 7", "the weekday '7' cannot be read.*0 to 6, or sun to sat"),
        ("0 0 * * fri-mon", "the weekday"),
        ("0 0 * * monday", "the weekday"),
        ("5-1 * * * *", "the minute"),
        ("*/0 * * * *", "the minute"),
        ("1,,2 * * * *", "the minute"),
        (", * * * *", "the minute"),
        ("-1 * * * *", "the minute"),
        ("١ * * * *", "the minute"),
        ("0 0 30 2 *", "never occurs"),
        ("0 0 31 4,6,9,11 *", "never occurs"),
        ("@daily", "has 1 fields"),
        ("CRON_TZ=Europe/Moscow 0 4 * * *", "the second 'CRON_TZ"),
    ],
)
def test_cron_expression_that_the_server_refuses_or_never_runs_is_refused(cron: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Schedule.read(cron, "")


@pytest.mark.parametrize("every", ["59s", "99999999999999d", "١h"])
def test_interval_that_the_server_cannot_hold_is_refused(every: str) -> None:
    with pytest.raises(InputError, match="is not an interval of a minute to ten years"):
        Schedule.read("", every)

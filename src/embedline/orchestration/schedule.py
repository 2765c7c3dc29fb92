"""Schedule of a recurring run, in the cron dialect of Kubeflow Pipelines (robfig/cron 1.2).

The server reads a cron expression in UTC, unless CRON_SCHEDULE_TIMEZONE of its deployment names another zone.
Unlike crontab(5) it has seconds first, and Sunday is 0 only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import NamedTuple

from embedline.errors import InputError

ZONE = "UTC"
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_S = 10 * 366 * 86_400
_LONGEST_WAIT_DAYS = 8 * 366  # February 29th may be left out once in a century


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _Field(NamedTuple):
    """One field of a cron expression: the values it can take, and names for them."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("weekday", 0, 6, _WEEKDAYS),
)


@dataclass(frozen=True)
class Schedule:
    """Schedule of a recurring run: a cron expression (seconds first), or an interval in seconds."""

    cron: str = ""
    interval_s: int = 0

    @classmethod
    def read(cls, cron: str, every: str) -> Schedule | None:
        """Read a schedule from the user's options; None when both are empty.

        Args:
            cron: five fields as in crontab(5), or six with seconds first, as the server needs them.
            every: 30m, 6h, 7d, or seconds.

        Raises:
            InputError: an option cannot be read, both are given, or the expression has no moment.
        """
        if cron and every:
            raise InputError("exclude each other.", where="--schedule and --every", fix="Give one of them.")
        if cron:
            fields = cron.split()
            if len(fields) not in {5, 6}:
                raise InputError(
                    f"{cron!r} has {len(fields)} fields.",
                    where="--schedule",
                    fix="Write minute hour day month weekday, or second minute hour day month weekday.",
                )
            made = cls(cron=" ".join(fields if len(fields) == 6 else ["0", *fields]))
            made.next_after(datetime.now(UTC))
            return made
        if every:
            match = re.fullmatch(r"([0-9]+)([smhd]?)", every)
            seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
            if not 60 <= seconds <= _MOST_S:
                raise InputError(
                    f"{every!r} is not an interval of a minute to ten years.",
                    where="--every",
                    fix="Write 30m, 6h or 7d.",
                )
            return cls(interval_s=seconds)
        return None

    def __str__(self) -> str:
        return f"{self.cron} ({ZONE})" if self.cron else f"every {self.interval_s} s"

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first moment of the cron expression after `moment`; None for an interval.

        Args:
            moment: with its time zone.

        Raises:
            InputError: a field cannot be read, or no day matches (February 30th).
        """
        if not self.cron:
            return None
        seconds, minutes, hours, days, months, weekdays = map(_values, self.cron.split(), _FIELDS)
        either = not any(set("*?") & set(field) for field in self.cron.split()[3::2])  # as in crontab(5)
        moment = moment.astimezone(UTC)
        for number in range(_LONGEST_WAIT_DAYS):
            date = (moment + timedelta(days=number)).date()
            fits = date.day in days, date.isoweekday() % 7 in weekdays
            if date.month not in months or not (any(fits) if either else all(fits)):
                continue
            for hour, minute, second in product(sorted(hours), sorted(minutes), sorted(seconds)):
                found = datetime(date.year, date.month, date.day, hour, minute, second, tzinfo=UTC)
                if found > moment:
                    return found
        raise InputError(
            f"{self.cron!r} never occurs.", where="--schedule", fix="Choose a day that the month has."
        )


def _values(text: str, field: _Field) -> set[int]:
    """Return the values that one field of an expression stands for."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:([*?])|(\w+)(?:-(\w+))?)(?:/([0-9]+))?", part, re.ASCII)
        if not match:
            raise _unreadable(text, field)
        every, first, last, step = match.groups()
        start = field.least if every else _number(first, text, field)
        end = field.most if every or (step and not last) else _number(last or first, text, field)
        if start > end or step == "0" or (step and len(step) > 4):
            raise _unreadable(text, field)
        found.update(range(start, end + 1, int(step or 1)))
    return found


def _number(word: str, text: str, field: _Field) -> int:
    if word.lower() in field.names:
        return field.names.index(word.lower()) + field.least
    if not re.fullmatch(r"[0-9]{1,4}", word) or not field.least <= int(word) <= field.most:
        raise _unreadable(text, field)
    return int(word)


def _unreadable(text: str, field: _Field) -> InputError:
    words = f", or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return InputError(
        f"the {field.name} {text!r} cannot be read.",
        where="--schedule",
        fix=f"Write {field.least} to {field.most}{words}; * for all, 1,5 for some, 1-5 for a range, */2 for "
        "every second one.",
    )

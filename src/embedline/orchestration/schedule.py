"""Schedule of a recurring run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedline.errors import InputError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


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
            InputError: an option cannot be read, or both are given.
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
            return cls(cron=" ".join(fields if len(fields) == 6 else ["0", *fields]))
        if every:
            match = re.fullmatch(r"(\d+)([smhd]?)", every)
            seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
            if seconds < 60:
                raise InputError(
                    f"{every!r} is not an interval of a minute or more.",
                    where="--every",
                    fix="Write 30m, 6h or 7d.",
                )
            return cls(interval_s=seconds)
        return None

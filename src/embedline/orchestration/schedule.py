"""When a recurring run starts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedline.errors import InputError

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Schedule:
    """When a recurring run starts: by a cron expression (seconds first), or every so many seconds."""

    cron: str = ""
    interval_s: int = 0

    @classmethod
    def read(cls, cron: str, every: str) -> Schedule | None:
        """From what a person writes; None when there is nothing.

        Args:
            cron: five fields as in crontab(5), or six with seconds first, which is what the server takes.
            every: 30m, 6h, 7d, or seconds.

        Raises:
            InputError: it cannot be read, or both are given.
        """
        if cron and every:
            raise InputError("one of --schedule and --every is enough.")
        if cron:
            fields = cron.split()
            if len(fields) not in {5, 6}:
                raise InputError(
                    f"{cron!r} has {len(fields)} fields.",
                    where="--schedule",
                    fix="Write minute hour day month weekday, with seconds before them if you like.",
                )
            return cls(cron=" ".join(fields if len(fields) == 6 else ["0", *fields]))
        if every:
            found = re.fullmatch(r"(\d+)([smhd]?)", every)
            seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
            if seconds < 60:
                raise InputError(f"{every!r} is no interval.", where="--every", fix="Write 30m, 6h or 7d.")
            return cls(interval_s=seconds)
        return None

"""What the user states about a third-party model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedline.errors import InputError


@dataclass(frozen=True)
class Stated:
    """Pooling and mask of a folder, as the user states them; they come before the folder's files.

    Args:
        pooling: mean, cls or last; None: as the folder states it.
        causal: whether a token attends to earlier ones only; None: as the folder states it.
    """

    pooling: str | None = None
    causal: bool | None = None


NOTHING = Stated()


def require_unstated(folder: Path, stated: Stated) -> None:
    """Refuse a statement about a folder that Embedline wrote: its files hold pooling and mask.

    Raises:
        InputError: something is stated.
    """
    if stated != NOTHING:
        raise InputError(
            "was written by Embedline, which records pooling and mask in it.",
            where=str(folder),
            fix="Omit them (--pooling, --causal, teacher.pooling and the like).",
        )

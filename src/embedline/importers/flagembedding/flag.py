"""One row of the tables of flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedline.importers.flagembedding.readers import Reader, text
from embedline.importers.flagembedding.writers import Writer


@dataclass(frozen=True)
class Flag:
    """One flag of FlagEmbedding and the preset keys that replace it.

    Args:
        name: the flag, without dashes.
        note: on the documentation page; where there is no key, why there is none.
        keys: preset keys; none where the flag has no counterpart.
        read: from the words after the flag to its value.
        write: from the flag's value to the key's (with several keys, a tuple of one each). None as a result
            leaves a key out. Without a writer the value is taken as it is.
        default: FlagEmbedding's default, where it differs from the preset's: written when the flag is absent.
        default_in: part of the names of the modules that have this default; empty for all.
    """

    name: str
    note: str = ""
    keys: tuple[str, ...] = ()
    read: Reader = text
    write: Writer | None = None
    default: Any = None
    default_in: str = ""


def flag(
    name: str,
    keys: str = "",
    note: str = "",
    read: Reader = text,
    *,
    write: Writer | None = None,
    default: Any = None,
    default_in: str = "",
) -> Flag:
    """Make a row, with its keys in one text, separated by spaces."""
    return Flag(name, note, tuple(keys.split()), read, write, default, default_in)

"""An attribute: one thing that can be asked about an entity, with its wordings in both languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedline.data.demo.things import Family


@dataclass(frozen=True)
class Wording:
    """How one language speaks of an attribute; `says` hold "{v}" where one of `values` goes."""

    nouns: tuple[str, ...]
    asks: tuple[str, ...]
    says: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """An attribute of devices, of services or of both; value i means the same in both languages."""

    key: str
    family: Family | Literal["any"]
    ru: Wording
    en: Wording

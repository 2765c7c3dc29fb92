"""An attribute of an entity that questions are about, with its wordings in both languages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedline.data.demo.things import Family


@dataclass(frozen=True)
class Wording:
    """The wordings of an attribute in one language; `says` contain "{v}" in place of one of `values`."""

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

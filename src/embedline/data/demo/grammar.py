"""Names of an entity in a sentence: Russian agreement and the choice between alias, name and both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedline.data.demo.things import AdjectiveClass, Gender, Kind, Noun, Trait, TraitSet

Case = Literal["nominative", "genitive"]
Lang = Literal["ru", "en"]
Style = Literal["alias", "name", "full"]

# Endings of hard adjectives by gender; the other classes differ by a letter each.
_HARD: dict[Case, dict[Gender, str]] = {
    "nominative": {"m": "ый", "f": "ая", "n": "ое", "p": "ые"},
    "genitive": {"m": "ого", "f": "ой", "n": "ого", "p": "ых"},
}
_SOFT: dict[Case, dict[Gender, str]] = {
    "nominative": {"m": "ий", "f": "яя", "n": "ее", "p": "ие"},
    "genitive": {"m": "его", "f": "ей", "n": "его", "p": "их"},
}
_VELAR: dict[Case, dict[Gender, str]] = {
    "nominative": {"m": "ий", "f": "ая", "n": "ое", "p": "ие"},
    "genitive": {"m": "ого", "f": "ой", "n": "ого", "p": "их"},
}
_ENDINGS: dict[AdjectiveClass, dict[Case, dict[Gender, str]]] = {
    "hard": _HARD,
    "soft": _SOFT,
    "velar": _VELAR,
}


@dataclass(frozen=True)
class Entity:
    """A product or service; kind and trait together are unique, and so are its name and its code."""

    key: str
    kind: Kind
    trait: TraitSet
    name_en: str
    name_ru: str
    code: str


@dataclass(frozen=True)
class Mention:
    """The wording of an entity to use: indices into the synonyms of its kind and of its trait."""

    style: Style
    kind: int = 0
    trait: int = 0
    latin: bool = False


def alias_ru(noun: Noun, trait: Trait, case: Case, name: str = "") -> str:
    """ "синие наушники", "наушники Велако цвета неба"."""
    words = noun.nominative if case == "nominative" else noun.genitive
    named = f"{words} {name}" if name else words
    if trait.adjective is None:
        return f"{named} {trait.text}"
    return f"{trait.text}{_ENDINGS[trait.adjective][case][noun.gender]} {named}"


def alias_en(noun: str, trait: str, name: str = "") -> str:
    """ "the blue headphones", "the Velamo headphones for trips"."""
    if trait.startswith("+"):
        return " ".join(filter(None, ("the", name, noun, trait[1:])))
    return " ".join(filter(None, ("the", trait, name, noun)))


def mention(entity: Entity, how: Mention, lang: Lang, case: Case = "nominative") -> str:
    """Return the words for `entity`; a bare name takes no case and no article."""
    name = entity.name_en if lang == "en" or how.latin else entity.name_ru
    if how.style == "name":
        return f"{name} {entity.code}"
    shown = name if how.style == "full" else ""
    if lang == "en":
        return alias_en(entity.kind.en[how.kind], entity.trait.en[how.trait], shown)
    return alias_ru(entity.kind.ru[how.kind], entity.trait.ru[how.trait], case, shown)


def capitalised(text: str) -> str:
    """Put the first letter of `text` in upper case and leave the rest."""
    return text[:1].upper() + text[1:]

"""haystack-v1: long Russian and English texts from a seed, each with one fact at a chosen depth.

No question can be answered from the filler. Both languages alternate at random in every document, so that
the language of a question does not identify its document.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from embedline.errors import InputError

GENERATOR = "haystack-v1"

CountTokens = Callable[[str], int]  # counts the tokens of a text, without special ones

_FILLER = {
    "ru": (
        "соседи рыбаки студенты инженеры туристы музыканты столяры садовники пекари моряки врачи актёры",
        "обсуждали чинили красили искали вспоминали описывали разбирали осматривали ждали выбирали",
        (
            "старую лодку|крышу сарая|новые правила|дорогу к озеру|вчерашний концерт|деревянную лестницу|"
            "расписание поездов|осенний урожай|погоду на выходные|карту местности|книжные полки|ограду сада"
        ),
        (
            "до самого вечера|без лишней спешки|после обеда|у реки|за большим столом|в тёплый день|"
            "второй раз за неделю|вместе с гостями|под мелким дождём|в тишине|на краю города|перед отъездом"
        ),
    ),
    "en": (
        "neighbours fishermen students engineers tourists musicians carpenters gardeners bakers sailors",
        "discussed repaired painted wanted remembered described dismantled inspected awaited chose",
        (
            "the old boat|the barn roof|the new rules|the road to the lake|the concert|a wooden staircase|"
            "the train timetable|the autumn harvest|the weather|a map of the valley|the book shelves"
        ),
        (
            "until late in the evening|without any hurry|after lunch|by the river|at a large table|"
            "on a warm day|twice that week|together with the guests|in light rain|in silence|before leaving"
        ),
    ),
}
_KEYS = {
    "ru": (
        "янтарный багровый лазурный изумрудный серебряный пурпурный медный бирюзовый хрустальный рубиновый "
        "бронзовый сапфировый золочёный жемчужный агатовый ониксовый",
        "сокол барсук журавль тюлень филин кабан тигр олень ястреб дельфин бобр лось пеликан гепард ёж рысак",
    ),
    "en": (
        "amber crimson azure emerald silver purple copper turquoise crystal ruby bronze sapphire gilded "
        "pearly agate onyx",
        "falcon badger crane seal owl boar tiger deer hawk dolphin beaver moose pelican cheetah hedgehog fox",
    ),
}
_NEEDLE = {
    "ru": ("Шифр сейфа «{key}» — {value}.", "Какой шифр у сейфа «{key}»?"),
    "en": ("The code of the vault “{key}” is {value}.", "What is the code of the vault “{key}”?"),
}


@dataclass(frozen=True)
class Haystack:
    """One question, the document that answers it, and the same document without the answer."""

    query: str
    document: str
    without: str


def set_name(depth: int) -> str:
    """Return the name of a depth's documents in score rows."""
    return f"Needle@{depth}"


def haystacks(
    count: int, depth: int, count_tokens: CountTokens, *, seed: int, length: int | None = None
) -> list[Haystack]:
    """Generate `count` documents whose fact starts after at least `depth` tokens; no key occurs twice.

    Args:
        length: tokens of a document, at least; a third more than `depth` when None.

    Raises:
        ValueError: more documents than there are keys.
    """
    chance = random.Random(f"{GENERATOR} {seed}")
    pairs = [(language, a, b) for language, (x, y) in _KEYS.items() for a in x.split() for b in y.split()]
    keys = chance.sample(pairs, count)
    length = max(depth + depth // 3, depth + 64) if length is None else length
    made = []
    for language, first, second in keys:
        before = _filler(chance, depth, count_tokens)
        after = _filler(chance, max(0, length - depth), count_tokens)
        fact, question = _NEEDLE[language]
        key = f"{first} {second}"
        needle = fact.format(key=key, value=chance.randrange(10_000, 100_000))
        made.append(
            Haystack(
                question.format(key=key), " ".join([*before, needle, *after]), " ".join([*before, *after])
            )
        )
    return made


def _filler(chance: random.Random, tokens: int, count_tokens: CountTokens) -> list[str]:
    """Generate sentences of at least `tokens` tokens together.

    Raises:
        InputError: a sentence has no tokens, so that there would be no end.
    """
    sentences: list[str] = []
    have = 0
    while have < tokens:
        who, did, what, how = _FILLER[chance.choice(("ru", "en"))]
        words = (chance.choice(who.split()), chance.choice(did.split()))
        sentence = f"{words[0].capitalize()} {words[1]} {chance.choice(what.split('|'))} "
        sentence += f"{chance.choice(how.split('|'))}."
        if not (count := count_tokens(sentence)):
            raise InputError(
                f"its tokenizer finds no token in {sentence!r}.",
                where="the evaluated model",
                fix="Check the files of its tokenizer.",
            )
        sentences.append(sentence)
        have += count
    return sentences

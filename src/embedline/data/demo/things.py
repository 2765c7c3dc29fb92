"""Vocabulary of the world: product kinds, the traits that tell siblings apart, brand names.

Every kind and trait is a set of synonyms. Russian nouns carry what agreement needs (nominative, genitive,
gender); a trait is an adjective that agrees or a phrase that follows the noun unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["device", "service"]
Gender = Literal["m", "f", "n", "p"]
AdjectiveClass = Literal["hard", "soft", "velar"]


@dataclass(frozen=True)
class Noun:
    """A Russian noun phrase that takes an adjective before it: "робот-уборщик, робота-уборщика, m"."""

    nominative: str
    genitive: str
    gender: Gender


@dataclass(frozen=True)
class Trait:
    """One wording of a trait: a Russian adjective (stem and class) or a phrase after the noun."""

    text: str
    adjective: AdjectiveClass | None


@dataclass(frozen=True)
class Kind:
    """A product kind with its synonyms in both languages."""

    key: str
    family: Family
    ru: tuple[Noun, ...]
    en: tuple[str, ...]


@dataclass(frozen=True)
class TraitSet:
    """A trait with its synonyms; an English wording that starts with "+" follows the noun."""

    key: str
    ru: tuple[Trait, ...]
    en: tuple[str, ...]


def _noun(entry: str) -> Noun:
    nominative, genitive, gender = entry.split("|")
    genders: dict[str, Gender] = {"m": "m", "f": "f", "n": "n", "p": "p"}
    return Noun(nominative, genitive, genders[gender])


def _trait(entry: str) -> Trait:
    if entry.startswith("+"):
        return Trait(entry[1:], None)
    stem, kind = entry.split("|")
    classes: dict[str, AdjectiveClass] = {"hard": "hard", "soft": "soft", "velar": "velar"}
    return Trait(stem, classes[kind])


def _kind(family: Family, key: str, ru: str, en: str) -> Kind:
    return Kind(key, family, tuple(map(_noun, ru.split("; "))), tuple(en.split("; ")))


def _traits(key: str, ru: str, en: str) -> TraitSet:
    return TraitSet(key, tuple(map(_trait, ru.split("; "))), tuple(en.split("; ")))


KINDS: tuple[Kind, ...] = (
    _kind(
        "device",
        "earbuds",
        "наушники|наушников|p; вкладыши|вкладышей|p; гарнитура|гарнитуры|f",
        "headphones; earbuds; headset",
    ),
    _kind(
        "device",
        "kettle",
        "чайник|чайника|m; водогрей|водогрея|m; кипятильник|кипятильника|m",
        "kettle; water boiler; hot jug",
    ),
    _kind(
        "device",
        "vacuum",
        "пылесос|пылесоса|m; робот-уборщик|робота-уборщика|m; мойщик полов|мойщика полов|m",
        "vacuum cleaner; floor robot; dust collector",
    ),
    _kind(
        "device",
        "watch",
        "часы|часов|p; браслет|браслета|m; трекер на запястье|трекера на запястье|m",
        "watch; wrist tracker; smart band",
    ),
    _kind(
        "device",
        "speaker",
        "колонка|колонки|f; динамик|динамика|m; акустика|акустики|f",
        "speaker; sound box; audio cube",
    ),
    _kind(
        "device",
        "lamp",
        "лампа|лампы|f; светильник|светильника|m; ночник|ночника|m",
        "lamp; night light; luminaire",
    ),
    _kind(
        "device",
        "scooter",
        "самокат|самоката|m; скутер|скутера|m; доска на колёсах|доски на колёсах|f",
        "scooter; kick board; two-wheeler",
    ),
    _kind(
        "device",
        "camera",
        "камера|камеры|f; видеоняня|видеоняни|f; регистратор|регистратора|m",
        "camera; video eye; recorder",
    ),
    _kind(
        "device",
        "printer",
        "принтер|принтера|m; копир|копира|m; печатный станок|печатного станка|m",
        "printer; copier; ink station",
    ),
    _kind(
        "device",
        "router",
        "роутер|роутера|m; маршрутизатор|маршрутизатора|m; раздатчик сети|раздатчика сети|m",
        "router; internet hub; gateway box",
    ),
    _kind(
        "device",
        "fridge",
        "холодильник|холодильника|m; рефрижератор|рефрижератора|m; морозилка|морозилки|f",
        "fridge; refrigerator; cold cabinet",
    ),
    _kind(
        "device",
        "oven",
        "духовка|духовки|f; печь|печи|f; жарочный шкаф|жарочного шкафа|m",
        "oven; stove; baking chamber",
    ),
    _kind(
        "device",
        "coffee",
        "кофеварка|кофеварки|f; эспрессо-машина|эспрессо-машины|f; бариста-станция|бариста-станции|f",
        "coffee maker; espresso machine; barista unit",
    ),
    _kind(
        "device",
        "blender",
        "блендер|блендера|m; измельчитель|измельчителя|m; миксер|миксера|m",
        "blender; food chopper; mixer",
    ),
    _kind(
        "device",
        "toothbrush",
        "щётка для зубов|щётки для зубов|f; ирригатор|ирригатора|m; дентал-уход|дентал-ухода|m",
        "toothbrush; dental cleaner; oral care wand",
    ),
    _kind(
        "device",
        "thermostat",
        "термостат|термостата|m; климат-контроль|климат-контроля|m; датчик тепла|датчика тепла|m",
        "thermostat; heat controller; climate sensor",
    ),
    _kind(
        "device",
        "tablet",
        "планшет|планшета|m; сенсорный экран|сенсорного экрана|m; читалка|читалки|f",
        "tablet; touch slate; reader",
    ),
    _kind(
        "device",
        "keyboard",
        "клавиатура|клавиатуры|f; панель набора|панели набора|f; кнопочный блок|кнопочного блока|m",
        "keyboard; key panel; typing board",
    ),
    _kind(
        "service",
        "music",
        "музыкальный сервис|музыкального сервиса|m; стриминг песен|стриминга песен|m; фонотека|фонотеки|f",
        "music service; song streaming; tune club",
    ),
    _kind(
        "service",
        "mobile",
        "тариф|тарифа|m; пакет связи|пакета связи|m; телефонный план|телефонного плана|m",
        "mobile tariff; phone plan; calling package",
    ),
    _kind(
        "service",
        "cloud",
        "облако|облака|n; файловое хранилище|файлового хранилища|n; сетевой диск|сетевого диска|m",
        "cloud storage; online drive; file vault",
    ),
    _kind(
        "service",
        "course",
        "курс|курса|m; обучающая программа|обучающей программы|f; школа|школы|f",
        "course; training programme; school",
    ),
    _kind(
        "service",
        "cinema",
        "кинотеатр|кинотеатра|m; видеотека|видеотеки|f; каталог фильмов|каталога фильмов|m",
        "cinema; film library; movie catalogue",
    ),
    _kind(
        "service",
        "insurance",
        "страховка|страховки|f; полис|полиса|m; договор защиты|договора защиты|m",
        "insurance; policy; cover deal",
    ),
)

TRAITS: tuple[TraitSet, ...] = (
    _traits("blue", "син|soft; лазурн|hard; +цвета неба", "blue; azure; sky-toned"),
    _traits("red", "красн|hard; ал|hard; +цвета спелой вишни", "red; scarlet; cherry-toned"),
    _traits("green", "зелён|hard; изумрудн|hard; +цвета травы", "green; emerald; grass-toned"),
    _traits("black", "чёрн|hard; угольн|hard; +цвета ночи", "black; charcoal; night-toned"),
    _traits("white", "бел|hard; снежн|hard; +цвета молока", "white; snowy; milk-toned"),
    _traits("yellow", "жёлт|hard; золотист|hard; +цвета лимона", "yellow; golden; lemon-toned"),
    _traits("kids", "детск|velar; +для малышей; +под присмотр родителей", "kids'; junior; +for little ones"),
    _traits("travel", "дорожн|hard; походн|hard; +для поездок", "travel; portable; +for trips"),
    _traits("sport", "спортивн|hard; атлетическ|velar; +для тренировок", "sports; athletic; +for workouts"),
    _traits("luxury", "премиальн|hard; роскошн|hard; +высшего класса", "premium; luxury; +of top class"),
    _traits(
        "budget", "бюджетн|hard; экономичн|hard; +по низкой цене", "budget; low-cost; +for thrifty people"
    ),
    _traits("retro", "старинн|hard; винтажн|hard; +в стиле ретро", "vintage; old-style; +in retro look"),
    _traits("small", "маленьк|velar; компактн|hard; +мини-формата", "small; compact; pocket-sized"),
    _traits("large", "крупн|hard; огромн|hard; +увеличенного размера", "large; huge; +of increased size"),
)

# Brand names end in a vowel that Russian does not decline, so that a name needs no cases.
NAME_STARTS: tuple[tuple[str, str], ...] = (
    ("Vel", "Вел"),
    ("Tar", "Тар"),
    ("Orb", "Орб"),
    ("Kim", "Ким"),
    ("Zan", "Зан"),
    ("Lum", "Лум"),
    ("Fer", "Фер"),
    ("Nov", "Нов"),
    ("Ras", "Рас"),
    ("Gil", "Гил"),
    ("Dor", "Дор"),
    ("Mir", "Мир"),
    ("Pal", "Пал"),
    ("Sev", "Сев"),
    ("Bon", "Бон"),
    ("Tig", "Тиг"),
)
NAME_MIDDLES: tuple[tuple[str, str], ...] = (
    ("amf", "амф"),
    ("erk", "ерк"),
    ("ilv", "илв"),
    ("ond", "онд"),
    ("usp", "усп"),
    ("atr", "атр"),
    ("inz", "инз"),
    ("ovg", "овг"),
    ("arb", "арб"),
    ("ekl", "екл"),
    ("imt", "имт"),
    ("onn", "онн"),
    ("ubr", "убр"),
    ("alt", "алт"),
    ("edv", "едв"),
    ("isk", "иск"),
)
NAME_ENDS: tuple[tuple[str, str], ...] = (("o", "о"), ("i", "и"), ("u", "у"), ("e", "е"))

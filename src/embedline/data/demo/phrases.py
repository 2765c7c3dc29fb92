"""Sentence frames: slots are {e}, {g} (entity, nominative and genitive), {n} (noun), {a} (spoken question).

A frame adds no word that tells one fact from another. A filler sentence takes one part from each of its
columns, so that two passages seldom share one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frames:
    """The frames of one language."""

    ask: tuple[str, ...]
    ask_noun: tuple[str, ...]
    ask_both: tuple[str, ...]
    title: tuple[str, ...]
    lead: tuple[str, ...]
    topic: tuple[str, ...]
    filler: tuple[tuple[str, ...], ...]
    cross: tuple[str, ...]
    definition: tuple[str, ...]
    glossary: tuple[str, ...]
    state: tuple[str, ...]


RU = Frames(
    ask=(
        "У меня {e}: {a}?",
        "{a}, если у меня {e}?",
        "Вот моя покупка, {e}: {a}?",
        "{e} — {a}?",
        "Вопрос от владельца {g}: {a}?",
    ),
    ask_noun=("{n}, {e}: подскажите?", "{n} для {g} — где прочитать?", "{e}: какой ответ на вопрос «{n}»?"),
    ask_both=("{n}: {a}, если у меня {e}?", "{e}, {n}. {a}?", "{n} для {g}: {a}?"),
    title=("{n}: {e}", "{e} — {n}", "{n} для {g}"),
    lead=(
        "Эта статья для тех, у кого {e}.",
        "Речь пойдёт о модели: {e}.",
        "Памятка покупателю {g}.",
        "{e}: коротко о главном.",
        "Раздел справки: {e}.",
    ),
    topic=(
        "Тема раздела: {n}.",
        "{n}: порядок описан ниже.",
        "Пункт справочника: {n}.",
        "Ключевое понятие: {n}.",
    ),
    filler=(
        (
            "Инженер лаборатории",
            "Редактор портала",
            "Автор справки",
            "Дежурный методист",
            "Наш технический писатель",
            "Сотрудник архива",
            "Опытный наставник",
            "Независимый эксперт",
            "Внимательный читатель",
            "Куратор базы знаний",
        ),
        (
            "ежегодно проверяет",
            "вручную дополняет",
            "по просьбе коллег уточняет",
            "подробно поясняет",
            "кратко пересказывает",
            "регулярно сверяет",
            "старательно иллюстрирует",
            "с интересом обсуждает",
        ),
        (
            "этот раздел",
            "снимки и схемы",
            "порядок шагов",
            "примеры из практики",
            "таблицу внизу страницы",
            "сноски мелким шрифтом",
            "черновик брошюры",
            "перечень терминов",
        ),
        (
            "перед публикацией",
            "каждую весну",
            "вместе со студентами",
            "по внутреннему плану",
            "без лишней спешки",
            "для печатного сборника",
            "на общей встрече",
            "после отзывов",
        ),
    ),
    cross=("Отдельно рассмотрено: {n}.", "Смотрите также: {n}.", "В соседней главе: {n}."),
    definition=(
        "{e} — это то же самое, что {f}.",
        "В каталоге {e}, а в народе просто {f}.",
        "{e}: под этим обозначением продаётся {f}.",
        "Когда пишут «{e}», имеют в виду: {f}.",
    ),
    glossary=(
        "{n} — то же, что {m}.",
        "Когда спрашивают «{a}», речь о теме: {n}.",
        "Если клиент говорит «{a}», откройте главу: {n}.",
        "{n}, иначе говоря {m}.",
    ),
    state=("{e}: {s}", "Для {g} верно: {s}", "{e}. {s}"),
)

EN = Frames(
    ask=(
        "I have {e}: {a}?",
        "{a}, given that I own {e}?",
        "Here is what we bought, {e}: {a}?",
        "{e} - {a}?",
        "A question from an owner of {e}: {a}?",
    ),
    ask_noun=(
        "{n}, {e}: any advice?",
        "{n} for {e}, where do I read about it?",
        "{e}: what is the answer on {n}?",
    ),
    ask_both=("{n}: {a}, given that I own {e}?", "{e}, {n}. {a}?", "{n} for {e}: {a}?"),
    title=("{n}: {e}", "{e} - {n}", "{n} for {e}"),
    lead=(
        "This article is for every holder of {e}.",
        "The model in question: {e}.",
        "A memo to the buyer: {e}.",
        "{e}: the essentials.",
        "Help section: {e}.",
    ),
    topic=(
        "Section topic: {n}.",
        "{n}: the order is described below.",
        "Handbook entry: {n}.",
        "Key notion: {n}.",
    ),
    filler=(
        (
            "A lab engineer",
            "The portal editor",
            "The author of the help pages",
            "A methodologist on shift",
            "Our technical writer",
            "A clerk of the archive",
            "A seasoned mentor",
            "An independent expert",
            "An attentive visitor",
            "The knowledge base curator",
        ),
        (
            "checks",
            "extends by hand",
            "clarifies at a colleague's request",
            "explains at length",
            "briefly retells",
            "regularly compares",
            "diligently illustrates",
            "discusses with interest",
        ),
        (
            "this section",
            "the pictures and diagrams",
            "the sequence of steps",
            "examples from practice",
            "the table at the bottom of the page",
            "the footnotes in small print",
            "a draft of the brochure",
            "the list of terms",
        ),
        (
            "before publication",
            "every spring",
            "together with students",
            "under an internal scheme",
            "in no great rush",
            "for the printed volume",
            "at a general meeting",
            "in response to reviews",
        ),
    ),
    cross=("Treated separately: {n}.", "See also: {n}.", "In the next chapter: {n}."),
    definition=(
        "{e} is the same thing as {f}.",
        "In the catalogue {e}, in plain talk just {f}.",
        "{e}: under this label we sell {f}.",
        "Whoever writes '{e}' means {f}.",
    ),
    glossary=(
        "{n} is the same as {m}.",
        "When they ask '{a}', the subject is {n}.",
        "If a client says '{a}', open the chapter on {n}.",
        "{n}, in other words {m}.",
    ),
    state=("{e}: {s}", "For {e} this holds: {s}", "{e}. {s}"),
)

FRAMES: dict[str, Frames] = {"ru": RU, "en": EN}

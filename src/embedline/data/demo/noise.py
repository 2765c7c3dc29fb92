"""A weak source with every kind of row that cleaning rejects, and a list of the planted rows."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from random import Random

from embedline.data.demo.narrator import Narrator
from embedline.data.demo.world import Fact, World

Row = dict[str, object]
SOURCE = "noisy"
GOOD, LONG, DUPLICATES, NEAR, LEAKS, MISMATCHED, JUNK = 360, 40, 40, 30, 36, 60, 24

_FOREIGN = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore",
    "der schnelle Fuchs springt über den faulen Hund und niemand weiß warum das heute wieder so lange dauert",
    "duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur",
    "am Anfang war das Wort und später kamen noch viele andere Wörter ohne jede Bedeutung hinzu",
)
_MARKUP = (
    '<div class="nav"><a href="/a{i}">Home</a><a href="/b{i}">Cart</a><script>track({i});</script></div>',
    "<table><tr><td>&nbsp;{i}</td><td>&nbsp;</td></tr></table><style>.x{i}{{color:red}}</style><br/><br/>",
)
_MALFORMED = (
    '{"query": "незакрытая строка, "pos": [',
    '{"query": "без ответа", "source": "noisy", "task_type": "short-long", "lang": "ru"}',
    '{"query": "", "pos": ["Вопроса нет."], "source": "noisy", "task_type": "short-long", "lang": "ru"}',
)


@dataclass(frozen=True)
class Line:
    """A line of the file, what was planted in it ("" for a good row) and the text it was made from."""

    text: str
    planted: str
    origin: str = ""


def row(query: str, positive: str, source: str, task_type: str, lang: str) -> Row:
    """Return a training pair in the BGE form."""
    return {"query": query, "pos": [positive], "source": source, "task_type": task_type, "lang": lang}


def normalised(text: str) -> str:
    """Return words only, as decontamination compares them: NFKC, lower case, ё as е, no punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("ё", "е")))


def noisy_lines(
    world: World, narrator: Narrator, facts: list[Fact], leaks: list[tuple[str, str, str]], asked: set[str]
) -> list[Line]:
    """Make good rows from `facts` and, shuffled among them, every kind of bad row.

    `leaks` are evaluation queries with answer and language of the pair; no good row asks one of `asked`
    (normalised).
    """
    rng = narrator.rng
    lines: list[Line] = []

    def add(query: str, positive: str, planted: str = "", lang: str = "ru", origin: str = "") -> None:
        task = "long-long" if len(query) > 400 else "short-long"
        lines.append(Line(_dumps(row(query, positive, SOURCE, task, lang)), planted, origin))

    good: list[tuple[str, str]] = []
    for fact in rng.sample(facts, GOOD):
        # A user's own telling of the article: other words, the same fact.
        passage = narrator.passage(fact, "ru")
        question = narrator.question(fact, "ru", passage)
        if normalised(question) not in asked:
            good.append((question, passage.text))
    long_rows = []
    for entity in rng.sample(world.entities, LONG):
        manual = narrator.long_document(world.facts_of(entity), "ru").text
        cut = manual.index(" ", len(manual) // 2)
        long_rows.append((manual[:cut], manual[cut + 1 :]))
    for query, positive in [*good, *long_rows]:
        add(query, positive)
    for query, positive in rng.sample(good, DUPLICATES):
        add(query, positive, "exact_duplicates", origin=query)
    for query, positive in rng.sample(long_rows, NEAR):
        add(_edited(rng, query), _edited(rng, positive), "near_duplicates", origin=query)
    for index, (query, positive, lang) in enumerate(rng.sample(leaks, LEAKS)):
        add(_disguised(query, index % 4), positive, "leaked_queries", lang, origin=query)
    wrong = rng.sample(good, 2 * MISMATCHED)
    for (query, _), (_, positive) in zip(wrong[:MISMATCHED], wrong[MISMATCHED:], strict=True):
        add(query + " " + narrator.filler("ru"), positive, "mismatched", origin=query)
    for index in range(JUNK):
        add(_MARKUP[index % 2].format(i=index), _MARKUP[(index + 1) % 2].format(i=index), "html")
        words = _FOREIGN[index % len(_FOREIGN)].split()
        rng.shuffle(words)
        add(" ".join(words[:8]), " ".join(words * 3), "wrong_language")
        add(rng.choice(("ок", "да", "+1", "?", "up", "спс")) + "!" * (index % 3), "см.", "too_short")
    lines.extend(Line(text, "malformed") for text in _MALFORMED)
    rng.shuffle(lines)
    return lines


def planted_rows(lines: list[Line], file: str) -> dict[str, list[dict[str, object]]]:
    """Return the line (1-based) of each planted row, and the query that it was made from, if any."""
    found: dict[str, list[dict[str, object]]] = {}
    for number, line in enumerate(lines, 1):
        if line.planted:
            entry: dict[str, object] = {"file": file, "line": number}
            found.setdefault(line.planted, []).append(
                entry | ({"origin": line.origin} if line.origin else {})
            )
    return dict(sorted(found.items()))


def _edited(rng: Random, text: str) -> str:
    """Replace two words of a long text."""
    words = text.split(" ")
    for index in rng.sample(range(len(words)), 2):
        words[index] = "примерно"
    return " ".join(words)


def _disguised(query: str, how: int) -> str:
    """Return an evaluation query verbatim, in capitals, with its ё spelt е, or with other punctuation."""
    forms = (
        query,
        query.upper(),
        query.replace("ё", "е").replace("Ё", "Е"),
        query.replace("?", " ?!").replace(",", " ,"),
    )
    return forms[how]


def _dumps(value: Row) -> str:
    return json.dumps(value, ensure_ascii=False)

"""Writer of the demo world, in files as a user's own data would have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from embedline.data.demo.evaluation import EvaluationSet, evaluation_sets, sts_pairs
from embedline.data.demo.grammar import Lang, Style, capitalised, mention
from embedline.data.demo.narrator import Narrator, Passage
from embedline.data.demo.noise import Row, noisy_lines, normalised, planted_rows, row
from embedline.data.demo.world import ATTRIBUTES, Fact, World, build_world

BITEXT, PARAPHRASES, ENGLISH_QUESTIONS, CROSS_QUESTIONS, GLOSSARIES, THREADS = 3000, 800, 1500, 1800, 4, 2
NOISY = "train/noisy.jsonl"
OVERVIEW_TITLES: tuple[dict[Style, int], ...] = ({"alias": 1}, {"full": 1, "name": 1})
LANGS: tuple[Lang, Lang] = ("ru", "en")


def write_demo(folder: Path, seed: int = 0) -> dict[str, int]:
    """Write the demo data below `folder` and return the number of lines in each file.

    The same seed gives the same bytes. `planted.json` says which rows of `train/noisy.jsonl` are bad and how.
    """
    world = build_world(Random(seed))
    narrator = Narrator(Random(seed + 1))
    passages = _keyed(narrator.passage(fact, lang) for lang in LANGS for fact in world.facts)
    overviews = _keyed(narrator.overview(entity, lang) for lang in LANGS for entity in world.entities)
    glossaries = _keyed(
        narrator.glossary(attribute, lang, number)
        for lang in LANGS
        for attribute in ATTRIBUTES
        for number in range(GLOSSARIES)
    )
    sets = evaluation_sets(world, narrator, passages, overviews)
    manuals = {key: text for found in sets for key, text in found.manuals.items()}
    asked = {normalised(text) for found in sets for text in found.queries.values()}
    held_out = {fact.key for fact in world.held_out}
    facts = [fact for fact in world.facts if fact.key not in held_out]

    training: dict[str, Iterable[Row]] = {
        "title_body_ru": _weak_pairs(narrator, world, facts, "ru", passages, overviews),
        "title_body_en": _weak_pairs(narrator, world, facts, "en", passages, overviews),
        "bitext": _bitext(narrator, facts),
        "sts": _paraphrases(narrator, facts),
        **_questions(narrator, facts, passages),
    }
    files = {f"train/{name}.jsonl": _training_lines(rows, asked) for name, rows in training.items()}
    files["corpus/support.jsonl"] = _passages(passages | overviews | glossaries | manuals)
    files["corpus/threads.jsonl"] = _passages(_threads(Narrator(Random(seed + 2)), facts, asked))
    for found in sets:
        files |= _evaluation_files(found)
    files["eval/SupportSTS/test.jsonl"] = _lines(sts_pairs(world, narrator))

    leaks = [leak for found in sets if not found.manuals for leak in found.leaks()]
    noisy = noisy_lines(world, narrator, facts, leaks, asked)
    files[NOISY] = [line.text for line in noisy]
    for name, lines in files.items():
        _write(folder / name, "".join(f"{line}\n" for line in lines))
    _write(
        folder / "planted.json", json.dumps(planted_rows(noisy, NOISY), ensure_ascii=False, indent=1) + "\n"
    )
    return {name: len(lines) for name, lines in sorted(files.items())}


def _keyed(texts: Iterable[Passage]) -> dict[str, Passage]:
    return {text.key: text for text in texts}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _weak_pairs(
    narrator: Narrator,
    world: World,
    facts: list[Fact],
    lang: Lang,
    passages: dict[str, Passage],
    overviews: dict[str, Passage],
) -> Iterable[Row]:
    """Pair link texts with their passages, and names or aliases with the overview of what they name."""
    source = f"title_body_{lang}"
    for fact in facts:
        passage = passages[f"{lang}-{fact.key}"]
        yield row(narrator.title(fact, lang, passage), passage.text, source, "short-long", lang)
    for entity in world.entities:
        for styles in OVERVIEW_TITLES:
            how = narrator.mention(entity, styles)
            overview = overviews[f"{lang}-{entity.key}-overview"]
            yield row(capitalised(mention(entity, how, lang)), overview.text, source, "short-long", lang)


def _threads(narrator: Narrator, facts: list[Fact], asked: set[str]) -> dict[str, Passage]:
    """Write threads about facts that are not held out, without any question of an evaluation set."""
    threads = _keyed(
        narrator.thread(fact, lang, number) for lang in LANGS for fact in facts for number in range(THREADS)
    )
    said = {key: normalised(text.text) for key, text in threads.items()}
    return {key: threads[key] for key, text in said.items() if not any(query in text for query in asked)}


def _bitext(narrator: Narrator, facts: list[Fact]) -> Iterable[Row]:
    for _ in range(BITEXT):
        english, russian = narrator.translated(narrator.rng.choice(facts))
        yield row(english, russian, "bitext", "bitext", "en-ru")


def _questions(narrator: Narrator, facts: list[Fact], passages: dict[str, Passage]) -> dict[str, list[Row]]:
    """Pair questions with passages: every fact in Russian, many in English, many across the languages."""
    rng = narrator.rng

    def asked(fact: Fact, lang: Lang, about: Lang, source: str) -> Row:
        passage = passages[f"{about}-{fact.key}"]
        written = lang if lang == about else "en-ru"
        return row(narrator.question(fact, lang, passage), passage.text, source, "short-long", written)

    return {
        "questions_ru": [asked(fact, "ru", "ru", "questions_ru") for fact in facts],
        "questions_en": [
            asked(fact, "en", "en", "questions_en") for fact in rng.sample(facts, ENGLISH_QUESTIONS)
        ],
        "questions_x": [
            asked(fact, *(("en", "ru") if rng.random() < 0.8 else ("ru", "en")), "questions_x")
            for fact in rng.sample(facts, CROSS_QUESTIONS)
        ],
    }


def _paraphrases(narrator: Narrator, facts: list[Fact]) -> Iterable[Row]:
    for number, fact in enumerate(narrator.rng.sample(facts, PARAPHRASES)):
        lang = LANGS[number % 2]
        yield row(narrator.question(fact, lang), narrator.question(fact, lang), "sts", "sts", lang)


def _training_lines(rows: Iterable[Row], asked: set[str]) -> list[str]:
    """Return the rows as lines, without repeats and without any query of an evaluation set."""
    lines: dict[str, None] = {}
    for found in rows:
        texts = [str(found["query"]), *map(str, found["pos"] if isinstance(found["pos"], list) else ())]
        if asked.isdisjoint(map(normalised, texts)) and len(set(texts)) == 2:
            lines[json.dumps(found, ensure_ascii=False)] = None
    return list(lines)


def _evaluation_files(found: EvaluationSet) -> dict[str, list[str]]:
    documents = (
        {"_id": key, "title": text.title, "text": text.text} for key, text in found.documents.items()
    )
    return {
        f"eval/{found.name}/corpus.jsonl": _lines(documents),
        f"eval/{found.name}/queries.jsonl": _lines(
            {"_id": key, "text": text} for key, text in found.queries.items()
        ),
        f"eval/{found.name}/qrels.tsv": [
            "query-id\tcorpus-id\tscore",
            *(f"{query}\t{document}\t1" for query, document in found.relevant.items()),
        ],
    }


def _passages(texts: Mapping[str, Passage]) -> list[str]:
    return _lines({"id": key, "title": text.title, "text": text.text} for key, text in sorted(texts.items()))


def _lines(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return [json.dumps(found, ensure_ascii=False) for found in rows]

"""The evaluation sets of the world: short passages, long documents, and graded sentence pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedline.data.demo.grammar import Lang
from embedline.data.demo.narrator import Narrator, Passage
from embedline.data.demo.world import Fact, World

LONG_ANSWERED, LONG_DISTRACTORS, LONG_QUERIES_PER_DOCUMENT = 12, 18, 3
STS_PAIRS_PER_GRADE = 40


@dataclass
class EvaluationSet:
    """A retrieval set in "ru", "en" or "en-ru"; `manuals` is empty except where the documents are long."""

    name: str
    lang: str
    documents: dict[str, Passage]
    queries: dict[str, str] = field(default_factory=dict)
    relevant: dict[str, str] = field(default_factory=dict)
    manuals: dict[str, Passage] = field(default_factory=dict)

    def ask(self, query: str, document: str) -> None:
        """Add a query and its one relevant document."""
        key = f"q{len(self.queries):04d}"
        self.queries[key], self.relevant[key] = query, document

    def leaks(self) -> list[tuple[str, str, str]]:
        """Yield every query with the text that answers it and the language of the pair."""
        return [
            (text, self.documents[self.relevant[key]].text, self.lang) for key, text in self.queries.items()
        ]


def evaluation_sets(
    world: World, narrator: Narrator, passages: dict[str, Passage], overviews: dict[str, Passage]
) -> list[EvaluationSet]:
    """Make SupportQA in Russian, English and from English to Russian, and SupportLong.

    The documents of a SupportQA set are all passages and overviews of the evaluated entities, so that each
    answer stands among other facts of its entity and the same attribute of its siblings.
    """
    entities = sorted({fact.entity.key for fact in world.evaluated})
    pairs: tuple[tuple[str, Lang, Lang], ...] = (
        ("SupportQA_ru", "ru", "ru"),
        ("SupportQA_en", "en", "en"),
        ("SupportQA_en2ru", "en", "ru"),
    )
    sets = []
    for name, query_lang, document_lang in pairs:
        keys = [f"{document_lang}-{fact.key}" for fact in world.evaluated]
        documents = {key: passages[key] for key in keys}
        documents |= {
            key: overviews[key] for key in (f"{document_lang}-{entity}-overview" for entity in entities)
        }
        found = EvaluationSet(name, "-".join(dict.fromkeys((query_lang, document_lang))), documents)
        for fact in world.held_out:
            key = f"{document_lang}-{fact.key}"
            found.ask(narrator.question(fact, query_lang, documents[key]), key)
        sets.append(found)
    return [*sets, _long_set(world, narrator)]


def _long_set(world: World, narrator: Narrator) -> EvaluationSet:
    """Make long manuals (thousands of characters); the last third of one of them answers each query."""
    documents: dict[str, Passage] = {}
    asked: list[tuple[str, Fact]] = []
    chosen = narrator.rng.sample(world.entities, LONG_ANSWERED + LONG_DISTRACTORS)
    for number, entity in enumerate(chosen):
        facts = world.facts_of(entity)
        manual = narrator.long_document(facts, "ru")
        documents[manual.key] = manual
        if number < LONG_ANSWERED:
            asked.extend((manual.key, fact) for fact in facts[-LONG_QUERIES_PER_DOCUMENT:])
    found = EvaluationSet("SupportLong", "ru", documents, manuals=documents)
    for key, fact in asked:
        found.ask(narrator.question(fact, "ru"), key)
    return found


def sts_pairs(world: World, narrator: Narrator) -> list[dict[str, object]]:
    """Make pairs of questions: 5 the same fact, 3 the same attribute of a sibling, 2 another fact of it,
    1 the same attribute of an unrelated entity, 0 nothing in common.
    """
    rng = narrator.rng
    pairs: list[dict[str, object]] = []
    lang: Lang
    for number, fact in enumerate(rng.sample(world.facts, STS_PAIRS_PER_GRADE * 5)):
        score = (5, 3, 2, 1, 0)[number % 5]
        others = [other for other in world.facts if _grade(fact, other) == score]
        if not others:
            continue
        lang = "ru" if number % 2 else "en"
        other = rng.choice(others)
        pairs.append(
            {
                "sentence1": narrator.question(fact, lang),
                "sentence2": narrator.question(other, lang),
                "score": float(score),
            }
        )
    return pairs


def _grade(fact: Fact, other: Fact) -> int:
    same_attribute = fact.attribute.key == other.attribute.key
    if fact.entity.key == other.entity.key:
        return 5 if same_attribute else 2
    same_kind = fact.entity.kind.key == other.entity.kind.key
    if same_attribute:
        return 3 if same_kind else 1
    return -1 if same_kind or fact.entity.trait.key == other.entity.trait.key else 0

"""Facts in words: passages, titles, questions, definitions, glossaries and long documents."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from embedline.data.demo.attribute import Attribute, Wording
from embedline.data.demo.grammar import Entity, Lang, Mention, Style, capitalised, mention
from embedline.data.demo.phrases import FRAMES
from embedline.data.demo.world import Fact

# How often a passage calls its entity by alias, by name, or by both; questions prefer the alias.
PASSAGE_STYLES: dict[Style, int] = {"full": 60, "alias": 28, "name": 12}
QUESTION_STYLES: dict[Style, int] = {"full": 35, "alias": 55, "name": 10}
# How a question speaks of its attribute: in spoken words, by a noun, or with both.
QUESTION_FORMS = {"ask": 45, "both": 30, "noun": 25}
LATIN_NAME_RATE = 0.6
TOPIC_RATE = 0.7
SECOND_STATEMENT_RATE = 0.4
CROSS_REFERENCE_RATE = 0.4
# How often a question quotes the passage's own words for its entity and attribute; otherwise it takes other
# synonyms, except that each choice may still fall on the same one at the second rate.
QUOTED_RATE = 0.28
SHARED_WORDING_RATE = 0.2


@dataclass(frozen=True)
class Passage:
    """A text of the corpus, with the wording that a question about it should avoid."""

    key: str
    title: str
    text: str
    mention: Mention
    noun: int = -1


class Narrator:
    """A writer of texts that draws every choice of words from one random stream."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def mention(self, entity: Entity, styles: dict[Style, int], avoid: Mention | None = None) -> Mention:
        """Draw a way to name the entity; with `avoid`, mostly by other synonyms than that mention used."""
        style = self.rng.choices(list(styles), list(styles.values()))[0]
        return Mention(
            style,
            self._index(len(entity.kind.en), avoid.kind if avoid else None),
            self._index(len(entity.trait.en), avoid.trait if avoid else None),
            self.rng.random() < LATIN_NAME_RATE,
        )

    def passage(self, fact: Fact, lang: Lang) -> Passage:
        """Write a help article that states one fact about one entity, and often points at another topic."""
        rng, frames, wording = self.rng, FRAMES[lang], _wording(fact.attribute, lang)
        how = self.mention(fact.entity, PASSAGE_STYLES)
        noun = rng.randrange(len(wording.nouns))
        statements = rng.sample(wording.says, 2 if rng.random() < SECOND_STATEMENT_RATE else 1)
        body = [statement.format(v=wording.values[fact.value]) for statement in statements]
        if rng.random() < TOPIC_RATE:
            body.insert(0, _fill(rng.choice(frames.topic), n=wording.nouns[noun]))
        body.extend(self.filler(lang) for _ in range(rng.randint(2, 3)))
        if rng.random() < CROSS_REFERENCE_RATE:
            body.append(self._cross_reference(fact, lang))
        lead = self._named(rng.choice(frames.lead), fact.entity, how, lang)
        title = self._named(rng.choice(frames.title), fact.entity, how, lang, n=wording.nouns[noun])
        return Passage(f"{lang}-{fact.key}", title, " ".join([lead, *body]), how, noun)

    def overview(self, entity: Entity, lang: Lang) -> Passage:
        """Write a passage that equates an entity's names and aliases, and states nothing else."""
        lines = [self.definition(entity, lang) for _ in range(3)]
        how = Mention("name", latin=True)
        text = " ".join([*lines, *(self.filler(lang) for _ in range(2))])
        return Passage(f"{lang}-{entity.key}-overview", mention(entity, how, lang), text, how)

    def definition(self, entity: Entity, lang: Lang) -> str:
        """Write one sentence that equates two ways to name the entity."""
        first = self.mention(entity, {"name": 2, "full": 1})
        second = self.mention(entity, {"alias": 1}, first)
        other = mention(entity, second, lang)
        return self._named(self.rng.choice(FRAMES[lang].definition), entity, first, lang, f=other)

    def glossary(self, attribute: Attribute, lang: Lang, number: int) -> Passage:
        """Write a passage that equates the wordings of one attribute without naming any entity."""
        rng, wording = self.rng, _wording(attribute, lang)
        lines = []
        for frame in rng.sample(FRAMES[lang].glossary, 3):
            noun, other = rng.sample(wording.nouns, 2)
            lines.append(_fill(frame, n=noun, m=other, a=rng.choice(wording.asks)))
        lines.append(rng.choice(wording.says).format(v=rng.choice(wording.values)))
        lines.append(self.filler(lang))
        title = capitalised(rng.choice(wording.nouns))
        return Passage(f"{lang}-{attribute.key}-glossary-{number}", title, " ".join(lines), Mention("alias"))

    def thread(self, fact: Fact, lang: Lang, number: int) -> Passage:
        """Write a forum thread: a question, its answer, another name of the entity; half are bilingual.

        The only kind of text with a buyer's words beside the manual's; it is unlabelled.
        """
        rng = self.rng
        reply = rng.choice((lang, "en" if lang == "ru" else "ru"))
        wording = _wording(fact.attribute, reply)
        answer = rng.choice(wording.says).format(v=wording.values[fact.value])
        text = " ".join([self.question(fact, lang), answer, self.definition(fact.entity, reply)])
        title = capitalised(rng.choice(_wording(fact.attribute, lang).nouns))
        return Passage(f"{lang}-{fact.key}-thread-{number}", title, text, Mention("alias"))

    def question(self, fact: Fact, lang: Lang, passage: Passage | None = None) -> str:
        """Write a question that the fact answers; with `passage`, mostly in other words than that passage."""
        rng, frames, wording = self.rng, FRAMES[lang], _wording(fact.attribute, lang)
        form = rng.choices(list(QUESTION_FORMS), list(QUESTION_FORMS.values()))[0]
        if passage and rng.random() < QUOTED_RATE:
            how, noun, form = passage.mention, passage.noun, "both" if form == "ask" else form
        else:
            how = self.mention(fact.entity, QUESTION_STYLES, passage.mention if passage else None)
            noun = self._index(len(wording.nouns), passage.noun if passage else None)
        frame = rng.choice({"ask": frames.ask, "both": frames.ask_both, "noun": frames.ask_noun}[form])
        return self._named(frame, fact.entity, how, lang, a=rng.choice(wording.asks), n=wording.nouns[noun])

    def title(self, fact: Fact, lang: Lang, passage: Passage) -> str:
        """Write a link text for a passage: a noun and any way to name the entity."""
        wording = _wording(fact.attribute, lang)
        how = self.mention(fact.entity, {"alias": 2, "full": 2, "name": 1}, passage.mention)
        noun = wording.nouns[self._index(len(wording.nouns), passage.noun)]
        return self._named(self.rng.choice(FRAMES[lang].title), fact.entity, how, lang, n=noun)

    def translated(self, fact: Fact) -> tuple[str, str]:
        """Write one sentence in English and Russian: a question, a title, a statement or a definition."""
        rng = self.rng
        form = rng.choice(("ask", "title", "state", "definition"))
        how = self.mention(fact.entity, {"alias": 2, "full": 2, "name": 1})
        other = self.mention(fact.entity, {"alias": 1}, how)
        slot, which = rng.randrange(3), rng.randrange(2)
        pair = []
        for lang in ("en", "ru"):
            wording: Wording = _wording(fact.attribute, lang)
            frame = getattr(FRAMES[lang], form)[slot]
            said = wording.says[which].format(v=wording.values[fact.value])
            words = {"a": wording.asks[slot], "n": wording.nouns[slot], "s": said}
            pair.append(
                self._named(frame, fact.entity, how, lang, **words, f=mention(fact.entity, other, lang))
            )
        return pair[0], pair[1]

    def long_document(self, facts: list[Fact], lang: Lang) -> Passage:
        """Write a manual of thousands of characters: one section a fact, in the given order."""
        rng, entity = self.rng, facts[0].entity
        how = self.mention(entity, {"full": 1})
        sections = [
            self._named(rng.choice(FRAMES[lang].lead), entity, how, lang),
            self.definition(entity, lang),
        ]
        for fact in facts:
            wording = _wording(fact.attribute, lang)
            noun = rng.choice(wording.nouns)
            sections.append(_fill(rng.choice(FRAMES[lang].topic), n=noun))
            sections.extend(statement.format(v=wording.values[fact.value]) for statement in wording.says)
            sections.extend(self.filler(lang) for _ in range(rng.randint(2, 4)))
        title = capitalised(mention(entity, how, lang))
        return Passage(f"{lang}-{entity.key}-manual", title, " ".join(sections), how)

    def filler(self, lang: Lang) -> str:
        """Draw a sentence without a fact."""
        return " ".join(self.rng.choice(column) for column in FRAMES[lang].filler) + "."

    def _cross_reference(self, fact: Fact, lang: Lang) -> str:
        noun = self.rng.choice(_wording(self.rng.choice(fact.siblings), lang).nouns)
        return _fill(self.rng.choice(FRAMES[lang].cross), n=noun)

    def _index(self, count: int, avoid: int | None) -> int:
        """Draw an index below `count`, mostly not `avoid`."""
        if avoid is None or not 0 <= avoid < count or self.rng.random() < SHARED_WORDING_RATE:
            return self.rng.randrange(count)
        return (avoid + self.rng.randrange(1, count)) % count

    def _named(self, frame: str, entity: Entity, how: Mention, lang: Lang, **words: str) -> str:
        return _fill(frame, e=mention(entity, how, lang), g=mention(entity, how, lang, "genitive"), **words)


def _wording(attribute: Attribute, lang: Lang) -> Wording:
    return attribute.ru if lang == "ru" else attribute.en


def _fill(frame: str, **words: str) -> str:
    """Fill the slots of a frame; every sentence in it starts with a capital letter."""
    sentences = frame.format(**words).split(". ")
    return ". ".join(capitalised(sentence) for sentence in sentences)

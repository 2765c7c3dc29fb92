"""Evaluation text that must not be trained on.

Protected are labels, not language: a record that holds an evaluation query (or a sentence of a pair, or a
text to be classified), or that answers with the document an evaluation query looks for, teaches the answer
and goes. The evaluation *documents* may stay in a corpus for pretraining: whoever trains a search model for a
collection has that collection, and unlabelled text does not say which query belongs to it. A passage that
spells out a whole query does say so, and goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedline.data.evaluation_reader import TEST, read_labelled, read_pairs, read_retrieval, read_sets
from embedline.data.normalize import comparison_form, normalize

MIN_CONTAINED_WORDS = 8


class ContainedQueries:
    """Finds which of many queries occur word for word in a text, without looking for each of them.

    Every query is filed under its rarest word; a text is searched for the queries whose rarest word it has.
    """

    def __init__(self, forms: Iterable[str], min_words: int = MIN_CONTAINED_WORDS) -> None:
        queries = {form: form.split() for form in sorted(set(forms))}
        queries = {form: words for form, words in queries.items() if len(words) >= min_words}
        frequency = Counter(word for words in queries.values() for word in set(words))
        self._by_word: dict[str, list[str]] = {}
        for form, words in queries.items():
            anchor = min(words, key=lambda word: (frequency[word], -len(word), word))
            self._by_word.setdefault(anchor, []).append(f" {form} ")
        self._anchors = frozenset(self._by_word)

    def find(self, form: str) -> str | None:
        """A query (comparison form) that `form` holds as a run of whole words, or None."""
        hits = self._anchors.intersection(form.split())
        if not hits:
            return None
        text = f" {form} "
        found = (query for word in sorted(hits) for query in self._by_word[word] if query in text)
        first = next(found, None)
        return first.strip() if first else None


@dataclass(frozen=True)
class Protected:
    """The evaluation sets' text in comparison form."""

    queries: frozenset[str] = frozenset()
    sentences: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()
    contained: ContainedQueries = field(default_factory=lambda: ContainedQueries([]))

    @classmethod
    def read(cls, evaluation_folder: Path) -> Protected:
        """Everything protected by the sets of an evaluation artefact.

        Raises:
            InputError: the folder is not laid out as `evaluation_sets` does it.
        """
        queries: set[str] = set()
        sentences: set[str] = set()
        answers: set[str] = set()
        for info in read_sets(evaluation_folder):
            folder = evaluation_folder / info.name
            if info.kind == "retrieval":
                found = read_retrieval(folder)
                queries.update(map(_form, found.queries.values()))
                judged = (item for relevant in found.qrels.values() for item in relevant.items())
                for document in {document for document, score in judged if score > 0}:
                    title, text = found.corpus[document]
                    answers.add(_form(text))
                    answers.add(_form(f"{title}\n{text}"))
            elif info.kind in {"classification", "multilabel"}:
                sentences.update(_form(text) for text, _ in read_labelled(folder, TEST))
            else:
                for sentence1, sentence2, _ in read_pairs(folder):
                    sentences.update((_form(sentence1), _form(sentence2)))
        return cls(
            frozenset(queries - {""}),
            frozenset(sentences - {""}),
            frozenset(answers - {""}),
            ContainedQueries(queries),
        )

    def leak_in_record(self, query: str, positives: Sequence[str]) -> str | None:
        """The rule that a record breaks, texts in comparison form; None when it breaks none."""
        texts = (query, *positives)
        if any(text in self.queries for text in texts):
            return "evaluation_query"
        if any(text in self.sentences for text in texts):
            return "evaluation_sentence"
        if any(text in self.answers for text in positives):
            return "evaluation_answer"
        return self._spelled_out(texts)

    def leak_in_passage(self, text: str) -> str | None:
        """The rule that a passage of a corpus breaks: it spells out a query."""
        return self._spelled_out((text,))

    def _spelled_out(self, texts: Sequence[str]) -> str | None:
        return "evaluation_query_inside" if any(self.contained.find(text) for text in texts) else None


def _form(text: str) -> str:
    """As texts are compared that were tidied: what tidying takes out of them, it takes out here."""
    return comparison_form(normalize(text))

"""Decontamination: evaluation text that must not be trained on.

Labels are protected, not texts as such. A record is rejected when it contains an evaluation query (or a
sentence of a pair, or a text to classify), or when its positive is a document relevant to an evaluation
query: training on it would teach the answer. The evaluation *documents* may stay in a corpus for
pretraining: a search model is trained for a collection that is at hand, and unlabelled text does not show
which query belongs to it. A passage that contains a whole query does show it, and is rejected.
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
    """An index of queries that finds those that occur word for word in a text, without trying each of them.

    Every query is indexed by its rarest word; a text is searched for the queries whose rarest word it has.
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
        """Return a query (comparison form) that `form` contains as a run of whole words, or None."""
        hits = self._anchors.intersection(form.split())
        if not hits:
            return None
        text = f" {form} "
        contained = (query for word in sorted(hits) for query in self._by_word[word] if query in text)
        first = next(contained, None)
        return first.strip() if first else None


@dataclass(frozen=True)
class Protected:
    """The protected texts of evaluation sets, in comparison form."""

    queries: frozenset[str] = frozenset()
    sentences: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()
    contained: ContainedQueries = field(default_factory=lambda: ContainedQueries([]))

    @classmethod
    def read(cls, evaluation_folder: Path) -> Protected:
        """Read the protected texts of an evaluation artefact.

        Raises:
            InputError: the folder is not laid out by `evaluation_sets`.
        """
        queries: set[str] = set()
        sentences: set[str] = set()
        answers: set[str] = set()
        for info in read_sets(evaluation_folder):
            folder = evaluation_folder / info.name
            if info.kind == "retrieval":
                retrieval = read_retrieval(folder)
                queries.update(map(_form, retrieval.queries.values()))
                judged = (item for relevant in retrieval.qrels.values() for item in relevant.items())
                for document in {document for document, score in judged if score > 0}:
                    if document not in retrieval.corpus:  # it counts as not found
                        continue
                    title, text = retrieval.corpus[document]
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
        """Return the rule that a record breaks, or None; texts are in comparison form."""
        texts = (query, *positives)
        if any(text in self.queries for text in texts):
            return "evaluation_query"
        if any(text in self.sentences for text in texts):
            return "evaluation_sentence"
        if any(text in self.answers for text in positives):
            return "evaluation_answer"
        return self._query_inside(texts)

    def leak_in_passage(self, text: str) -> str | None:
        """Return the rule that a passage breaks when it contains a whole query, or None."""
        return self._query_inside((text,))

    def _query_inside(self, texts: Sequence[str]) -> str | None:
        return "evaluation_query_inside" if any(self.contained.find(text) for text in texts) else None


def _form(text: str) -> str:
    """Return the comparison form of the tidied text: training texts are tidied before comparison, too."""
    return comparison_form(normalize(text))

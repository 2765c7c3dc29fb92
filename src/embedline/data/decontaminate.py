"""Decontamination: evaluation text that must not be trained on.

Labels are protected, not texts as such. A record is rejected when it holds an evaluation query (or a
sentence of a pair, or a text to classify), or when a positive holds a document relevant to an evaluation
query: training on it would teach the answer. The evaluation *documents* may stay in a corpus for pretraining:
a search model is trained for a collection that is at hand, and unlabelled text does not show which query
belongs to it. A passage that holds a query does show it, and is rejected.

"Holds" means: is that text, has it inside, or nearly (`evaluation_index`). Texts are compared without markup,
case, punctuation and the alphabet of letters that look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from embedline.data.evaluation_index import EvaluationIndex, EvaluationText, Found, Kind
from embedline.data.evaluation_reader import TEST, read_labelled, read_pairs, read_retrieval, read_sets
from embedline.data.lookalikes import skeleton
from embedline.data.markup import strip_markup
from embedline.data.normalize import normalize
from embedline.words import comparison_form

COUNTED_DOCUMENTS = 100_000  # of each set, whose n-grams are counted: enough to know a template
_IN_TEXT: frozenset[Kind] = frozenset({"query", "sentence"})
_IN_POSITIVE: frozenset[Kind] = frozenset({"query", "sentence", "answer"})
_IN_PASSAGE: frozenset[Kind] = frozenset({"query"})


class Tidied(NamedTuple):
    """A tidied text and its comparison form."""

    text: str
    form: str

    @classmethod
    def of(cls, text: str) -> Tidied:
        return cls(text, comparison_form(text))


@dataclass(frozen=True)
class Protected:
    """The protected texts of evaluation sets."""

    index: EvaluationIndex | None = None

    @classmethod
    def read(cls, evaluation_folder: Path, *, contained_words: int = 8, overlap: float = 0.4) -> Protected:
        """Read the protected texts of an evaluation artefact.

        Args:
            contained_words, overlap: as of `EvaluationIndex`.

        Raises:
            InputError: the folder is not laid out by `evaluation_sets`.
        """
        texts: list[EvaluationText] = []
        titled: list[tuple[list[str], EvaluationText]] = []
        documents: list[Iterator[list[str]]] = []
        for info in read_sets(evaluation_folder):
            folder = evaluation_folder / info.name
            if info.kind == "retrieval":
                retrieval = read_retrieval(folder)
                texts += [EvaluationText("query", info.name, text) for text in retrieval.queries.values()]
                judged = (item for relevant in retrieval.qrels.values() for item in relevant.items())
                for document in sorted({document for document, score in judged if score > 0}):
                    if document not in retrieval.corpus:  # it counts as not found
                        continue
                    title, text = retrieval.corpus[document]
                    texts.append(answer := EvaluationText("answer", info.name, text))
                    titled.append((_words(f"{title}\n{text}"), answer))
                some = list(retrieval.corpus.values())[:COUNTED_DOCUMENTS]
                documents.append(_words(text) for _, text in some)
            elif info.kind in {"classification", "multilabel"}:
                texts += [EvaluationText("sentence", info.name, t) for t, _ in read_labelled(folder, TEST)]
            else:
                for sentence1, sentence2, _ in read_pairs(folder):
                    texts += [EvaluationText("sentence", info.name, t) for t in (sentence1, sentence2)]
        return cls(
            EvaluationIndex(
                ((_words(source.text), source) for source in texts),
                chain.from_iterable(documents),
                titled,
                contained_words=contained_words,
                overlap=overlap,
            )
        )

    def in_record(self, query: Tidied, positives: Sequence[Tidied]) -> Found:
        """Return what a record has of evaluation texts."""
        found = [self._find(query, _IN_TEXT), *(self._find(text, _IN_POSITIVE) for text in positives)]
        leaks = [each.leak for each in found if each.leak]
        if leaks:
            return Found(min(leaks, key=lambda leak: leak.rule.endswith("_inside")))
        return Found(None, frozenset().union(*(each.phrases for each in found)))

    def in_passage(self, text: Tidied) -> Found:
        """Return what a passage has of evaluation queries."""
        return self._find(text, _IN_PASSAGE)

    def _find(self, tidied: Tidied, kinds: frozenset[Kind]) -> Found:
        if not self.index:
            return Found()
        plain = strip_markup(tidied.text)
        form = tidied.form if plain == tidied.text else comparison_form(plain)
        return self.index.find(_skeletons(form), kinds)


def _words(text: str) -> list[str]:
    """Return the words to compare of an evaluation text: training texts are tidied before, too."""
    return _skeletons(comparison_form(strip_markup(normalize(text))))


def _skeletons(form: str) -> list[str]:
    words: Iterable[str] = form.split()
    return list(chain.from_iterable(map(skeleton, words)))

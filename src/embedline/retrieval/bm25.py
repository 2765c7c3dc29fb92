"""BM25: the baseline of every retrieval set.

Words of Russian and English are stemmed; those of other languages are compared as they stand, and scripts
without spaces between words by pairs of characters (`embedline.words`). For a language with many word forms,
or for Thai and Chinese with a segmenter, a stronger BM25 exists.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import snowballstemmer

from embedline.retrieval.postings import Postings
from embedline.retrieval.ranking import best
from embedline.words import words as unicode_words

_VOCABULARY = "vocabulary.json"
_CYRILLIC = re.compile("[а-я]")


class BM25:
    """BM25 (Robertson and Zaragoza 2009) with Lucene's always-positive idf, over one corpus.

    Args:
        k1: saturation of a term's frequency.
        b: strength of the normalisation by document length, 0..1.
        stem: reduce words to Snowball stems, Russian or English by each word's script.
    """

    def __init__(
        self, documents: Sequence[str], *, k1: float = 1.2, b: float = 0.75, stem: bool = True
    ) -> None:
        self.stem = stem
        self.vocabulary: dict[str, int] = {}
        counts_NV = self._counts(documents).tocoo()
        count = len(documents)
        lengths = np.bincount(counts_NV.row, weights=counts_NV.data, minlength=count)
        having = np.bincount(counts_NV.col, minlength=len(self.vocabulary))
        mean = lengths.mean() if lengths.any() else 1.0
        tf = counts_NV.data
        saturated = tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[counts_NV.row] / mean))
        weights = (_idf(having, count)[counts_NV.col] * saturated, (counts_NV.row, counts_NV.col))
        self.postings = Postings.of(sp.coo_matrix(weights, shape=(count, len(self.vocabulary))))

    def idf(self, word: str) -> float:
        """Return the idf of a word as `words` returns it; that of a word in no document is the largest."""
        term = self.vocabulary.get(word)
        having = 0 if term is None else int(np.diff(self.postings.starts[term : term + 2])[0])
        return float(_idf(np.array(having), self.postings.count))

    def has(self, word: str, document: int) -> bool:
        """Return whether a document has a word, as `words` returns it."""
        term = self.vocabulary.get(word)
        return term is not None and self.postings.has(term, document)

    def scores(self, query: str) -> np.ndarray:
        """Return the score of every document (N, float32); 0 where it shares no word with the query."""
        counts = Counter(words(query, stem=self.stem))
        terms = ((self.vocabulary.get(word), number) for word, number in counts.items())
        return self.postings.scores((term, float(number)) for term, number in terms if term is not None)

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and document indices (Q × k), best first, ties by the lower index.

        A document that shares no word with the query is not found: its score is 0 and its index -1.
        """
        k = min(k, self.postings.count)
        scores, indices = np.zeros((len(queries), k)), np.full((len(queries), k), -1, dtype=np.int64)
        for row, query in enumerate(queries):
            scores_N = self.scores(query)
            found = np.flatnonzero(scores_N)
            top = found[best(scores_N[found], k)]
            scores[row, : len(top)], indices[row, : len(top)] = scores_N[top], top
        return scores, indices

    def save(self, folder: Path) -> None:
        """Write vocabulary and postings into `folder`; `load` opens them without reading the documents."""
        self.postings.save(folder)
        value = {"stem": self.stem, "vocabulary": list(self.vocabulary)}
        (folder / _VOCABULARY).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BM25:
        """Open what `save` wrote; the postings are memory-mapped."""
        value = json.loads((folder / _VOCABULARY).read_text(encoding="utf-8"))
        model = cls.__new__(cls)
        model.stem = value["stem"]
        model.vocabulary = {word: term for term, word in enumerate(value["vocabulary"])}
        model.postings = Postings.load(folder)
        return model

    def _counts(self, texts: Sequence[str]) -> Any:
        """Count words (texts × vocabulary); new ones are added to the vocabulary."""
        rows, columns, values = array("q"), array("q"), array("d")
        for row, text in enumerate(texts):
            for word, number in Counter(words(text, stem=self.stem)).items():
                rows.append(row)
                columns.append(self.vocabulary.setdefault(word, len(self.vocabulary)))
                values.append(number)
        shape = (len(texts), len(self.vocabulary))
        return sp.csr_matrix((np.asarray(values), (np.asarray(rows), np.asarray(columns))), shape=shape)


def _idf(having: np.ndarray, count: int) -> np.ndarray:
    """Compute the idf of words that occur in `having` of `count` documents."""
    idf: np.ndarray = np.log(1 + (count - having + 0.5) / (having + 0.5))
    return idf


def words(text: str, *, stem: bool = True) -> list[str]:
    """Split a text into words of any script: lower case, ё as е, stemmed with `stem`."""
    plain = unicode_words(text.lower().replace("ё", "е"))
    return [_stem(word) for word in plain] if stem else plain


@cache
def _stemmers() -> tuple[Any, Any]:
    return snowballstemmer.stemmer("russian"), snowballstemmer.stemmer("english")


@cache
def _stem(word: str) -> str:
    russian, english = _stemmers()
    stemmer = russian if _CYRILLIC.search(word) else english
    stemmed: str = stemmer.stemWord(word)
    return stemmed

"""BM25: the baseline of every retrieval set.

Words of Russian and English are stemmed; those of other languages are compared as they stand, and scripts
without spaces between words by pairs of characters (`embedline.words`). For a language with many word forms,
or for Thai and Chinese with a segmenter, a stronger BM25 exists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import snowballstemmer

from embedline.words import words as unicode_words

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
        counts_NV = self._counts(documents, grow=True).tocoo()
        count = len(documents)
        lengths = np.bincount(counts_NV.row, weights=counts_NV.data, minlength=count)
        having = np.bincount(counts_NV.col, minlength=len(self.vocabulary))
        idf = np.log(1 + (count - having + 0.5) / (having + 0.5))
        mean = lengths.mean() if lengths.any() else 1.0
        tf = counts_NV.data
        saturated = tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[counts_NV.row] / mean))
        weights = (idf[counts_NV.col] * saturated, (counts_NV.col, counts_NV.row))
        self.weights_VN = sp.csr_matrix(weights, shape=(len(self.vocabulary), count))

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and document indices (Q × k), best first, ties by the lower index.

        A document that shares no word with the query is not found: its score is 0 and its index -1.
        """
        k = min(k, self.weights_VN.shape[1])
        scores, indices = np.zeros((len(queries), k)), np.full((len(queries), k), -1, dtype=np.int64)
        for start in range(0, len(queries), 256):
            block = self._counts(queries[start : start + 256], grow=False)
            dense = (block @ self.weights_VN).toarray().astype(np.float32)  # trec_eval's, and mteb's, width
            order = np.argsort(-dense, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(dense, order, axis=1)
            rows = slice(start, start + len(dense))
            scores[rows], indices[rows] = best, np.where(best > 0, order, -1)
        return scores, indices

    def _counts(self, texts: Sequence[str], *, grow: bool) -> Any:
        """Count words (texts × vocabulary); words outside the vocabulary are added, or left out."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            for word, number in Counter(words(text, stem=self.stem)).items():
                column = self.vocabulary.get(word)
                if column is None:
                    if not grow:
                        continue
                    column = self.vocabulary[word] = len(self.vocabulary)
                rows.append(row)
                columns.append(column)
                values.append(float(number))
        return sp.csr_matrix((values, (rows, columns)), shape=(len(texts), len(self.vocabulary)))


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

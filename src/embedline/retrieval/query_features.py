"""What a query has in common with the texts of an index, from the statistics of BM25."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from embedline.retrieval.bm25 import BM25, words
from embedline.retrieval.fusion import FEATURES


class QueryFeatures:
    """Features of queries over one index.

    - `constant`: 1.
    - `match`: share of the query's idf that its best document by BM25 has.
    - `known`: share of the query's idf that some document has.
    - `script`: how much of the query is in a script that the index uses, relative to the script it uses most.

    A word in no document has the largest idf: words of another language weigh most, and match nothing.

    Args:
        bm25: over the index.

    Example:
        >>> features = QueryFeatures(bm25)
        >>> scores, documents = bm25.search(queries, 100)
        >>> features(queries, documents[:, 0])
    """

    def __init__(self, bm25: BM25) -> None:
        self.bm25 = bm25
        self._shares = _script_shares(bm25)

    def __call__(self, queries: Sequence[str], best: np.ndarray) -> np.ndarray:
        """Return the features of each query (Q × F, in the order of `FEATURES`, each in 0..1).

        Args:
            best: the best document of each query by BM25 (Q), -1 without one.
        """
        rows = [self._row(query, int(document)) for query, document in zip(queries, best, strict=True)]
        return np.array(rows, dtype=np.float64).reshape(len(queries), len(FEATURES))

    def _row(self, query: str, document: int) -> tuple[float, ...]:
        bm25 = self.bm25
        idf = {word: bm25.idf(word) for word in words(query, stem=bm25.stem)}
        total = sum(idf.values())
        if not total:  # nothing to match
            return 1.0, 0.0, 0.0, 0.0
        known = sum(value for word, value in idf.items() if word in bm25.vocabulary)
        match = sum(value for word, value in idf.items() if bm25.has(word, document))
        scripts = [script for word in idf if (script := _script(word))]
        shares = [self._shares.get(script, 0.0) for script in scripts]
        return 1.0, match / total, known / total, float(np.mean(shares)) if shares else 1.0


def _script_shares(bm25: BM25) -> dict[str, float]:
    """Return how many words of each script the documents have, relative to the commonest script."""
    having = np.diff(bm25.postings.starts)
    counts: Counter[str] = Counter()
    for word, term in bm25.vocabulary.items():
        if script := _script(word):
            counts[script] += int(having[term])
    largest = max(counts.values(), default=1)
    return {script: count / largest for script, count in counts.items()}


def main_script(text: str) -> str:
    """Return the script that most words of a text are in; empty for a text without letters."""
    counts = Counter(script for word in words(text, stem=False) if (script := _script(word)))
    return counts.most_common(1)[0][0] if counts else ""


def _script(word: str) -> str:
    """Return the script of a word's first letter (LATIN, CYRILLIC); empty for a number."""
    names = (unicodedata.name(character, "") for character in word if character.isalpha())
    return next(names, "").partition(" ")[0]

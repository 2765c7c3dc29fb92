"""An index of evaluation texts that finds those that a training text holds: whole, inside it, or nearly.

Published decontaminations differ in n and in the share of an evaluation text that must be found: any n-gram
of 8 to 13 words in GPT-3 (Brown et al. 2020, appendix C), half of the words in shared 8-grams in Tülu 3
(Lambert et al. 2024, section 3.2), 80 % of the 5-grams, weighted by their rarity, in OLMo 3 (allenai/decon),
which asks more of shorter texts. Here:

* *inside*: every word of the evaluation text, in one run, whatever stands around it. A text of three words up
  to `contained_words` counts only where few rows hold it.
* *nearly*: a share of its words lie in shared 3-grams, because one replaced word in five breaks up most
  8-grams. Only those count that no other evaluation text or document has, and few rows: templates and stock
  phrases show nothing. It needs length: of a short title, the next title is most words, too.

"Few rows" are GPT-3's: an n-gram in more than 10 training documents is no sign of a leak.

Both are look-ups of the training text's words and 3-grams in hash tables of evaluation text, so the time
depends on the training text alone. The overlap is counted exactly, where MinHash would estimate it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["query", "sentence", "answer"]

SHORTEST = 3  # words; a shorter evaluation text is found only where it is the whole text
COMMON_ROWS = 10  # a phrase that more rows have is a stock phrase
NGRAM = 3
# Words of the shortest text that others may nearly be. An answer is compared with positives only.
NEAR_WORDS: Mapping[Kind, int] = {"query": 20, "sentence": 20, "answer": 12}
_ANY: frozenset[Kind] = frozenset({"query", "sentence", "answer"})


class EvaluationText(NamedTuple):
    """A text of an evaluation set, and what it is there."""

    kind: Kind
    set: str
    text: str


class Leak(NamedTuple):
    """An evaluation text that was found, and the rule that names how."""

    rule: str
    source: EvaluationText


# A part of an evaluation text that a training text has: all of a short one (a string), or an n-gram.
Phrase = str | tuple[str, ...]


class Found(NamedTuple):
    """What a text has of evaluation texts: a leak for certain, or phrases that may be one (`leak_in`)."""

    leak: Leak | None = None
    phrases: frozenset[Phrase] = frozenset()


class EvaluationIndex:
    """An index of evaluation texts by their words.

    Args:
        texts: words of each evaluation text; of equal ones of a kind, the first counts.
        documents: words of all documents of the sets: n-grams that two of them have are not distinctive.
        whole_only: words of other forms of the texts (with a title), which a training text may equal.
        contained_words: words from which on an evaluation text counts wherever it stands.
        overlap: share of a text's words, at least, in distinctive shared n-grams.
    """

    def __init__(
        self,
        texts: Iterable[tuple[Sequence[str], EvaluationText]],
        documents: Iterable[Sequence[str]] = (),
        whole_only: Iterable[tuple[Sequence[str], EvaluationText]] = (),
        *,
        contained_words: int = 8,
        overlap: float = 0.4,
    ) -> None:
        self.contained_words, self.overlap = contained_words, overlap
        self._equal: dict[str, dict[Kind, EvaluationText]] = {}
        self._add(texts)
        self._by_anchor = self._anchors()
        self._anchor_words = frozenset(self._by_anchor)
        self._of_ngram, self._words = self._distinctive(documents)
        self._ngrams = frozenset(self._of_ngram)
        self._add(whole_only)

    def find(self, words: Sequence[str], kinds: frozenset[Kind]) -> Found:
        """Search a text of these words for evaluation texts of some kinds: as a whole, then inside it."""
        form = " ".join(words)
        for kind, source in self._equal.get(form, {}).items():
            if kind in kinds:
                return Found(Leak(f"evaluation_{kind}", source))
        inside = self._inside(form, words, kinds)
        for candidate in inside:
            if candidate.count(" ") + 1 >= self.contained_words:
                return Found(self._leak_inside(candidate, kinds))
        ngrams = self._ngrams.intersection(_ngrams(words))
        own = (ngram for ngram in ngrams if self._of_ngram[ngram][0].kind in kinds)
        return Found(None, frozenset((*inside, *own)))

    def leak_in(self, phrases: Iterable[Phrase]) -> Leak | None:
        """Return the evaluation text that phrases of one row make up: nearly a long one, or a short one."""
        covered: defaultdict[EvaluationText, set[int]] = defaultdict(set)
        short: list[str] = []
        for phrase in phrases:
            if isinstance(phrase, str):
                short.append(phrase)
            else:
                source, starts = self._of_ngram[phrase]
                covered[source].update(start + i for start in starts for i in range(NGRAM))
        shares = ((len(found) / self._words[source], source) for source, found in covered.items())
        share, nearest = max(shares, default=(0.0, None))
        if nearest and share >= self.overlap:
            return Leak(f"evaluation_{nearest.kind}_near", nearest)
        return self._leak_inside(max(short, key=lambda form: (len(form), form)), _ANY) if short else None

    def _add(self, texts: Iterable[tuple[Sequence[str], EvaluationText]]) -> None:
        for words, source in texts:
            if words:
                self._equal.setdefault(" ".join(words), {}).setdefault(source.kind, source)

    def _anchors(self) -> dict[str, list[str]]:
        """Index each text of some length by its rarest word, as it stands between spaces."""
        long = {form: form.split() for form in sorted(self._equal)}
        long = {form: words for form, words in long.items() if len(words) >= SHORTEST}
        frequency = Counter(word for words in long.values() for word in set(words))
        found: dict[str, list[str]] = {}
        for form, words in sorted(long.items(), key=lambda item: -len(item[1])):
            anchor = min(words, key=lambda word: (frequency[word], -len(word), word))
            found.setdefault(anchor, []).append(form)
        return found

    def _inside(self, form: str, words: Sequence[str], kinds: frozenset[Kind]) -> list[str]:
        """Return the evaluation texts of some kinds inside a text, the longest first."""
        text = f" {form} "
        anchors = self._anchor_words.intersection(words)
        candidates = (candidate for word in anchors for candidate in self._by_anchor[word])
        found = [c for c in candidates if f" {c} " in text and self._leak_inside(c, kinds)]
        return sorted(found, key=lambda candidate: (-candidate.count(" "), candidate))

    def _leak_inside(self, form: str, kinds: frozenset[Kind]) -> Leak | None:
        """Return the leak of an evaluation text inside another, of one of `kinds`.

        A short sentence to classify or to compare is often a stock phrase: it is none.
        """
        long = form.count(" ") + 1 >= self.contained_words
        for kind, source in self._equal[form].items():
            if kind in kinds and (long or kind != "sentence"):
                return Leak(f"evaluation_{kind}_inside", source)
        return None

    def _distinctive(
        self, documents: Iterable[Sequence[str]]
    ) -> tuple[dict[tuple[str, ...], tuple[EvaluationText, list[int]]], dict[EvaluationText, int]]:
        """Index the n-grams that only one text has; count the words of each text that lie in them."""
        indexed: dict[str, EvaluationText] = {}
        for form, sources in sorted(self._equal.items()):
            for kind, source in sources.items():
                if form.count(" ") + 1 >= NEAR_WORDS[kind]:
                    indexed.setdefault(form, source)
        frequency = Counter(ngram for form in indexed for ngram in set(_ngrams(form.split())))
        wanted, seen = frozenset(frequency), set(indexed)
        others = (form.split() for form in self._equal if form not in indexed)
        for words in (*others, *documents):
            form = " ".join(words)
            if form not in seen:
                seen.add(form)
                frequency.update(wanted.intersection(_ngrams(words)))
        found: dict[tuple[str, ...], tuple[EvaluationText, list[int]]] = {}
        size: dict[EvaluationText, int] = {}
        for form, source in indexed.items():
            covered: set[int] = set()
            for start, ngram in enumerate(_ngrams(form.split())):
                if frequency[ngram] == 1:
                    found.setdefault(ngram, (source, []))[1].append(start)
                    covered.update(range(start, start + NGRAM))
            size[source] = len(covered)
        return found, size


def _ngrams(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(NGRAM)), strict=False)

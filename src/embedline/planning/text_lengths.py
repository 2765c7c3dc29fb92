"""The texts of a run, by a sample of each source: how many there are, and how many tokens they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from embedline.config.data import CorpusSource, Source
from embedline.config.schema import RunConfig
from embedline.data.records import Ids, MalformedRowError, passage_of, record_of
from embedline.data.sources import count_rows, read_source
from embedline.errors import EmbedlineError
from embedline.quoting import home_expanded

_SAMPLE = 64
_CHARACTERS = 4.5  # of a token: Russian and English text under a vocabulary of its languages
_SPECIAL = 2  # tokens at a text's ends


@dataclass(frozen=True)
class Texts:
    """Rows, and the mean tokens of their texts, each cut at the length of its use."""

    rows: float
    query: float
    document: float


def stage_texts(config: RunConfig, root: Path, stage: str, document_length: int) -> Texts:
    """Return the records of a stage; tokens are means over its batches, in which sources have their shares.

    Args:
        stage: unsupervised or supervised.
        document_length: tokens after which the stage cuts a document.
    """
    found = [
        (_record_texts(source, root, config.model.query_length, document_length), source.weight)
        for source in config.data.sources
        if stage in source.stages
    ]
    exponent = getattr(config, stage).size_exponent
    return _mean([(texts, texts.rows**exponent * weight) for texts, weight in found])


def corpus_texts(config: RunConfig, root: Path, length: int) -> Texts:
    """Return the passages of the corpus, cut at `length` tokens."""
    found = [(_passage_texts(source, root, length), source.weight) for source in config.data.corpus]
    return _mean([(texts, texts.rows * weight) for texts, weight in found])


def evaluation_texts(config: RunConfig, root: Path, sets: Sequence[str] = ()) -> Texts:
    """Return the texts of the evaluation sets, all or the named ones, as documents."""
    found, length = [], config.model.document_length
    for held_out in config.data.evaluation:
        folder = root / home_expanded(held_out.path)
        if not sets or (held_out.name or folder.name) in sets:
            for path in sorted(folder.rglob("*.jsonl*")):
                source = CorpusSource(path=str(path))
                lengths = [
                    _tokens(" ".join(v for v in values.values() if isinstance(v, str)), length)
                    for values in _sample(source, root)
                ]
                found.append(Texts(_rows(source, root), 0.0, _average(lengths)))
    return _mean([(texts, texts.rows) for texts in found])


def _mean(weighted: list[tuple[Texts, float]]) -> Texts:
    total = sum(weight for _, weight in weighted) or 1.0
    return Texts(
        sum(texts.rows for texts, _ in weighted),
        sum(texts.query * weight for texts, weight in weighted) / total,
        sum(texts.document * weight for texts, weight in weighted) / total,
    )


def _record_texts(source: Source, root: Path, query_length: int, document_length: int) -> Texts:
    queries, documents = [], []
    for values in _sample(source, root):
        try:
            row = record_of(values, source, "", Ids())
        except MalformedRowError:
            continue
        queries.append(_tokens(row["query"], query_length))
        documents += [_tokens(text, document_length) for text in row["positives"]]
    return Texts(_rows(source, root), _average(queries), _average(documents))


def _passage_texts(source: CorpusSource, root: Path, length: int) -> Texts:
    documents = []
    for values in _sample(source, root):
        try:
            row = passage_of(values, source, "", Ids())
        except MalformedRowError:
            continue
        documents.append(_tokens(f"{row['title']}\n{row['text']}", length))
    return Texts(_rows(source, root), 0.0, _average(documents))


def _sample(source: Source | CorpusSource, root: Path) -> list[dict[str, Any]]:
    return _first_rows(source.path, root, source.split)


def _rows(source: Source | CorpusSource, root: Path) -> float:
    rows = _count(source.path, root, source.split, isinstance(source, CorpusSource))
    return float(min(rows, source.limit or rows))


@cache  # stages share sources
def _first_rows(path: str, root: Path, split: str) -> list[dict[str, Any]]:
    """Return the first rows of a source; none where it cannot be read, which ingest reports."""
    try:
        lines = islice(read_source(path, root, split, texts=True), _SAMPLE)
        return [line.values for line in lines if isinstance(line.values, dict)]
    except EmbedlineError:
        return []


@cache
def _count(path: str, root: Path, split: str, texts: bool) -> int:
    """Return the rows of a source; 0 where they cannot be counted without reading them all."""
    try:
        return count_rows(path, root, split, texts=texts, cheaply=True) or 0
    except EmbedlineError:
        return 0


def _tokens(text: str, length: int) -> float:
    return min(float(length), len(text) / _CHARACTERS + _SPECIAL)


def _average(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0

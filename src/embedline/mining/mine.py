"""Mining of hard negatives for all records: searches within each task type and language."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, Protocol

import numpy as np

from embedline.config.training import MineConfig, MiningStrategy
from embedline.mining.negatives import (
    Candidates,
    MiningCounts,
    MiningRules,
    Negative,
    choose_negatives,
    deal,
    pool_of,
)
from embedline.mining.strategies import Pool, Search
from embedline.training.batching.records import Record, SourceRecords
from embedline.words import comparison_form

QUERIES = 16_384  # queries searched at a time: their vectors and candidates are in memory


class Encode(Protocol):
    """A function from texts of a source, task type and side to normalised vectors (N × D)."""

    def __call__(
        self, texts: list[str], source: str, task_type: str, side: Literal["query", "document"]
    ) -> np.ndarray: ...


# source name, task type → the prompt of documents
DocumentPrompt = Callable[[str, str], str]


@dataclass
class MinedSource:
    """The chosen negatives of one source's rows, in their order, and the pool that they index.

    Args:
        counts: of each strategy's candidates.
    """

    pool: list[str] = field(default_factory=list)
    negatives: list[list[Negative]] = field(default_factory=list)
    counts: dict[str, MiningCounts] = field(default_factory=dict)


def mine_negatives(
    sources: Mapping[str, SourceRecords],
    encode: Encode,
    config: MineConfig,
    *,
    seed: int,
    document_prompt: DocumentPrompt = lambda source, task_type: "",
) -> dict[str, MinedSource]:
    """Mine negatives for every record.

    Candidates are the positives and given negatives of all records of the same task type and language: texts
    of the same kind, in the same language as the positive. A given negative is a candidate like any other,
    because it may be an unlabelled positive like any other. For each source, candidates are encoded with the
    prompt that this source's documents are trained with, whatever source they come from.

    Args:
        seed: of the draw, where `config.sampling` is random.

    >>> mined = mine_negatives(read_records(path), encode, MineConfig(), seed=0)  # doctest: +SKIP
    >>> [mined["faq"].pool[negative.index] for negative in mined["faq"].negatives[0]]  # doctest: +SKIP
    """
    known_positives = _KnownPositives(sources)
    mined = {name: MinedSource(negatives=[[] for _ in source.rows]) for name, source in sources.items()}
    groups: dict[tuple[str, str], dict[str, list[int]]] = {}
    for name, source in sources.items():
        for i, row in enumerate(source.rows):  # a source may hold rows of several kinds
            groups.setdefault((row.task_type, row.language), {}).setdefault(name, []).append(i)
    for (task_type, _), members in groups.items():
        rows = {name: [sources[name].rows[i] for i in indices] for name, indices in members.items()}
        pool = pool_of(
            [t for some in rows.values() for row in some for t in (*row.positives, *row.negatives)]
        )
        queries, searched = known_positives.queries_in(pool), Pool(pool)
        by_prompt: dict[str, list[str]] = {}
        for name in members:
            by_prompt.setdefault(document_prompt(name, task_type), []).append(name)
        for names in by_prompt.values():
            documents = encode(searched.texts, names[0], task_type, "document")
            searches = searched.searches(config.strategies, documents)
            for name in names:
                known = [known_positives.indices(row, pool, queries) for row in rows[name]]
                encode_queries = _query_encoder(encode, name, task_type)
                _mine_rows(
                    mined[name],
                    members[name],
                    rows[name],
                    known,
                    encode_queries,
                    searches,
                    documents,
                    pool,
                    config,
                    seed,
                )
    return mined


def _query_encoder(encode: Encode, source: str, task_type: str) -> Callable[[list[str]], np.ndarray]:
    return lambda texts: encode(texts, source, task_type, "query")


def _mine_rows(
    result: MinedSource,
    row_indices: Sequence[int],
    rows: Sequence[Record],
    known: Sequence[frozenset[int]],
    encode: Callable[[list[str]], np.ndarray],
    searches: Mapping[MiningStrategy, Search],
    documents_MD: np.ndarray,
    pool: dict[str, int],
    config: MineConfig,
    seed: int,
) -> None:
    rules = MiningRules(config.negatives, config.margin, config.skip_top)
    generator = np.random.default_rng(seed) if config.sampling == "random" else None
    turns = deal(config.strategies)
    before = len(result.pool)
    result.pool.extend(pool)
    for start in range(0, len(rows), QUERIES):
        block = range(start, min(start + QUERIES, len(rows)))
        texts = [rows[i].query for i in block]
        queries_ND = encode(texts)
        # Known positives are among the best candidates: the search is deeper, so that `depth` others remain.
        depth = min(config.depth + max(len(known[i]) for i in block), len(pool))
        found = {name: search(texts, queries_ND, depth) for name, search in searches.items()}
        for i, query_D in zip(block, queries_ND, strict=True):
            look = config.depth + len(known[i])  # deeper by this row's known positives only
            own = [pool[text] for text in rows[i].positives]
            chosen, counts = choose_negatives(
                {name: _first(look, next(each)) for name, each in found.items()},
                rules,
                positives=known[i],
                positive_score=float((documents_MD[own] @ query_D).min()),
                turns=list(islice(turns, config.negatives)),
                draw=generator,
            )
            result.negatives[row_indices[i]] = [replace(pick, index=before + pick.index) for pick in chosen]
            for name, each in counts.items():
                result.counts.setdefault(name, MiningCounts()).add(each)


def _first(count: int, found: Candidates) -> Candidates:
    return Candidates(found.scores[:count], found.indices[:count])


class _KnownPositives:
    """The positives that any row, of any source, has for a query; none of them may become its negative."""

    def __init__(self, sources: Mapping[str, SourceRecords]) -> None:
        self._texts: dict[str, set[str]] = {}
        for source in sources.values():
            for row in source.rows:
                self._texts.setdefault(comparison_form(row.query), set()).update(row.positives)

    def queries_in(self, pool: Mapping[str, int]) -> dict[str, list[int]]:
        """Find the texts of the pool that are queries, too: comparison form of the query → indices."""
        found: dict[str, list[int]] = {}
        for text, index in pool.items():
            if (query := comparison_form(text)) in self._texts:
                found.setdefault(query, []).append(index)
        return found

    def indices(
        self, row: Record, pool: Mapping[str, int], queries: Mapping[str, list[int]]
    ) -> frozenset[int]:
        """Return the pool's indices of a row's known positives, and of its query where the pool has it.

        Args:
            queries: as `queries_in` returns them.
        """
        query = comparison_form(row.query)
        own = (pool[text] for text in self._texts[query] if text in pool)
        return frozenset([*own, *queries.get(query, ())])

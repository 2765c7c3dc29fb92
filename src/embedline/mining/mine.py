"""Mine hard negatives for all records with a model: exact search within each kind of task and language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from embedline.config.training import MineConfig
from embedline.mining.negatives import MiningCounts, Negative, choose_negatives, pool_of
from embedline.training.records import Record, SourceRecords
from embedline.vectors.search import exact_search

# texts, source name, task type, side → normalised vectors
Encode = Callable[[list[str], str, str, str], np.ndarray]


@dataclass
class MinedSource:
    """The chosen negatives of one source's rows, in their order, and the pool that they index."""

    pool: list[str]
    negatives: list[list[Negative]]
    counts: MiningCounts = field(default_factory=MiningCounts)


def mine_negatives(
    sources: Mapping[str, SourceRecords], encode: Encode, config: MineConfig, *, seed: int
) -> dict[str, MinedSource]:
    """Negatives for every record.

    Candidates are the positives and given negatives of all records of the same task type and language: texts
    of the same kind, in the same language as the right answer. A given negative is a candidate as any other,
    because it may be an unlabelled positive as any other.
    """
    mined: dict[str, MinedSource] = {}
    groups: dict[tuple[str, str], list[SourceRecords]] = {}
    for source in sources.values():
        groups.setdefault((source.task_type, source.rows[0].language), []).append(source)
    for (task_type, _), members in groups.items():
        texts = [t for s in members for row in s.rows for t in (*row.positives, *row.negatives)]
        pool = pool_of(texts)
        pool_texts = list(pool)
        documents = encode(pool_texts, members[0].name, task_type, "document")
        for source in members:
            queries = encode([row.query for row in source.rows], source.name, task_type, "query")
            mined[source.name] = _mine_source(source, queries, documents, pool, pool_texts, config, seed)
    return mined


def _mine_source(
    source: SourceRecords,
    queries_ND: np.ndarray,
    documents_MD: np.ndarray,
    pool: dict[str, int],
    pool_texts: list[str],
    config: MineConfig,
    seed: int,
) -> MinedSource:
    # The known positives are among the best candidates: look that much deeper, so that `depth` others remain.
    known = _known_positives(source.rows, pool)
    deepest = max(len(places) for places in known)
    depth = min(config.depth + deepest, len(pool_texts))
    scores_NK, indices_NK = exact_search(queries_ND, documents_MD, depth)
    generator = np.random.default_rng(seed) if config.sampling == "random" else None
    result = MinedSource(pool_texts, [])
    for i, row in enumerate(source.rows):
        own = [pool[text] for text in row.positives]
        look = config.depth + len(known[i])  # what other rows know does not make this one look deeper
        chosen, counts = choose_negatives(
            scores_NK[i, :look],
            indices_NK[i, :look],
            positives=known[i],
            positive_score=float((documents_MD[own] @ queries_ND[i]).min()),
            count=config.negatives,
            margin=config.margin,
            skip_top=config.skip_top,
            draw=generator,
        )
        result.negatives.append(chosen)
        result.counts.add(counts)
    return result


def _known_positives(rows: list[Record], pool: dict[str, int]) -> list[frozenset[int]]:
    """A row's positives are those of every row with the same query."""
    by_query: dict[str, set[int]] = {}
    for row in rows:
        by_query.setdefault(row.query, set()).update(pool[text] for text in row.positives)
    return [frozenset(by_query[row.query]) for row in rows]

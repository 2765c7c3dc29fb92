"""Batches of records as token ids: the same prompts, the same lengths wherever a stage tokenises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedline.config.training import ContrastiveConfig
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.batches import Draw
from embedline.training.records import Record, SourceRecords


class Batches(Sequence[Any]):
    """Batch i, tokenised when it is asked for.

    A batch says: the `step` it is for, its `source`, the names of its `rows`, token `ids` of all texts
    (queries first), how many `queries`, the `languages`, `task_types` and `row_sources` of the rows, the
    `owner` of each document, all `answers` of each query, and the `texts` of documents and queries. Where the
    rows have `scores`, each query has one document. `told` is what a teacher said of each query's own
    documents, its positive first; None where the row does not bring it, or has no negatives.
    """

    def __init__(
        self,
        embedder: Embedder,
        sources: Mapping[str, SourceRecords],
        draws: list[Draw],
        config: ContrastiveConfig,
    ) -> None:
        self.embedder, self.sources, self.draws, self.config = embedder, sources, draws, config

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: Any) -> Any:
        draw = self.draws[index]
        source = self.sources[draw.source]
        rows = [source.rows[i] for i in draw.rows]
        turns = [draw.epoch % len(row.positives) for row in rows]
        positives = [row.positives[turn] for row, turn in zip(rows, turns, strict=True)]
        negatives = [[] if source.scored else row.negatives[: self.config.negatives] for row in rows]
        owner = [*range(len(rows)), *(i for i, texts in enumerate(negatives) for _ in texts)]
        documents = [*positives, *(text for texts in negatives for text in texts)]
        return {
            "step": index,
            "source": draw.source,
            "rows": [row.id for row in rows],
            "ids": [
                *token_ids(self.embedder, rows, [row.query for row in rows], "query", source, self.config),
                *token_ids(
                    self.embedder, [rows[i] for i in owner], documents, "document", source, self.config
                ),
            ],
            "queries": len(rows),
            "languages": [row.language for row in rows],
            "task_types": [row.task_type for row in rows],
            "row_sources": [row.source or source.name for row in rows],
            "owner": owner,
            "answers": [row.positives for row in rows],
            "texts": documents,
            "query_texts": [row.query for row in rows],
            "scores": [row.score for row in rows] if source.scored else None,
            "told": [
                _told(row, turn, len(texts)) for row, turn, texts in zip(rows, turns, negatives, strict=True)
            ],
        }


def _told(row: Record, turn: int, negatives: int) -> list[float] | None:
    if row.positive_scores is None or row.negative_scores is None or not negatives:
        return None
    return [row.positive_scores[turn], *row.negative_scores[:negatives]]


def token_ids(
    embedder: Embedder,
    rows: Sequence[Record],
    texts: Sequence[str],
    side: Side,
    source: SourceRecords,
    config: ContrastiveConfig,
) -> list[list[int]]:
    """Token ids of texts of one side, each with the prompt of its row, cut as the stage cuts that side.

    A source may hold rows of several task types: a row's own decides, as in mining.
    """
    spec = embedder.spec
    documents = config.document_length or spec.document_length
    most = config.buckets[-1].tokens if config.buckets else max(documents, spec.query_length)
    found: list[list[int]] = [[] for _ in texts]
    for long in (False, True):
        places = [i for i, row in enumerate(rows) if is_long(side, row.task_type) == long]
        words = [texts[i] for i in places]
        if config.prompts:
            words = [_prompt(embedder, rows[i], side, source) + texts[i] for i in places]
        limit = min(documents if long else spec.query_length, most)
        for place, ids in zip(places, embedder.tokenize(words, max_length=limit), strict=True):
            found[place] = ids
    return found


def _prompt(embedder: Embedder, row: Record, side: Side, source: SourceRecords) -> str:
    return embedder.spec.prompts.prompt(side, name=row.source or source.name, task_type=row.task_type)


def longest_texts(
    embedder: Embedder, source: SourceRecords, config: ContrastiveConfig, *, at_once: int = 4096
) -> list[int]:
    """Tokens of each record's longest text, cut as in a batch.

    Args:
        at_once: records tokenised at a time: what bounds the memory.
    """
    found: list[int] = []
    for start in range(0, len(source.rows), at_once):
        rows = source.rows[start : start + at_once]
        queries = token_ids(embedder, rows, [row.query for row in rows], "query", source, config)
        longest = [len(ids) for ids in queries]
        given = 0 if source.scored else config.negatives
        texts = [(i, text) for i, row in enumerate(rows) for text in (*row.positives, *row.negatives[:given])]
        documents = token_ids(
            embedder, [rows[i] for i, _ in texts], [text for _, text in texts], "document", source, config
        )
        for (i, _), ids in zip(texts, documents, strict=True):
            longest[i] = max(longest[i], len(ids))
        found += longest
    return found

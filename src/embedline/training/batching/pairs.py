"""Records as token ids, with their prompts and cut to their stage's lengths, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedline.config.training import ContrastiveConfig
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.batching.batches import Draw
from embedline.training.batching.records import Record
from embedline.training.batching.rows import SourceRows
from embedline.training.batching.tokens import TokenIds, TokenisedRow, TokenStore, are_written, write_tokens
from embedline.training.engine import processes


@dataclass(frozen=True)
class ContrastiveBatch:
    """N rows of one source as N queries and M documents.

    The first N documents are the positives, in the order of the queries; hard negatives follow, in the order
    of their queries. Where the rows have scores, each query has one document.

    Args:
        step: the optimizer step that the batch is for.
        source: the source, or the group of rows, that the batch is drawn from.
        rows: the names of the rows.
        ids: token ids of all texts, queries first.
        query_count: N.
        languages, task_types, row_sources: of each row.
        query_index: the query that each document belongs to (M).
        known_positives: all positives of each query, those that are not in the batch included.
        document_texts, query_texts: the texts without prompts.
        scores: the score of each row; None for rows without scores.
        teacher_scores: a teacher's scores of each query's own documents, its positive first; None where the
            row has none, or no negatives.
    """

    step: int
    source: str
    rows: list[str]
    ids: list[list[int]]
    query_count: int
    languages: list[str]
    task_types: list[str]
    row_sources: list[str]
    query_index: list[int]
    known_positives: list[list[str]]
    document_texts: list[str]
    query_texts: list[str]
    scores: list[float] | None
    teacher_scores: list[list[float] | None]


def tokenised(
    embedder: Embedder, records: Iterable[Record], config: ContrastiveConfig, folder: Path
) -> TokenStore:
    """Return the records of a stage with their token ids, cut as in its batches.

    The first process writes them to `folder`. A resumed training reuses them, unless they are damaged.
    """

    def ids(rows: Sequence[Record]) -> TokenIds:
        queries = token_ids(embedder, rows, [row.query for row in rows], "query", config)
        positives = [row.positives for row in rows]
        # A scored pair is ranked among other pairs as it is: it has no negatives.
        negatives = [[] if row.score is not None else row.negatives[: config.negatives] for row in rows]
        return TokenIds(queries, of_rows(rows, positives), of_rows(rows, negatives))

    def of_rows(rows: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        owners = [row for row, own in zip(rows, texts, strict=True) for _ in own]
        flat = iter(token_ids(embedder, owners, [text for own in texts for text in own], "document", config))
        return [[next(flat) for _ in own] for own in texts]

    if processes.is_first() and not are_written(folder):
        write_tokens(folder, records, ids)
    processes.broadcast(None)  # the other processes wait for the folder
    return TokenStore(folder)


def token_ids(
    embedder: Embedder, rows: Sequence[Record], texts: Sequence[str], side: Side, config: ContrastiveConfig
) -> list[list[int]]:
    """Tokenise texts of one side, each with the prompt of its row and cut to the stage's length of that side.

    A source may hold rows of several task types: the row's own decides, as in mining.
    """
    spec = embedder.spec
    documents = config.document_length or spec.document_length
    most = config.buckets[-1].tokens if config.buckets else max(documents, spec.query_length)
    result: list[list[int]] = [[] for _ in texts]
    for long in (False, True):
        numbers = [i for i, row in enumerate(rows) if is_long(side, row.task_type) == long]
        inputs = [texts[i] for i in numbers]
        if config.prompts:
            inputs = [_prompt(embedder, rows[i], side) + texts[i] for i in numbers]
        limit = min(documents if long else spec.query_length, most)
        for number, ids in zip(numbers, embedder.tokenize(inputs, max_length=limit), strict=True):
            result[number] = ids
    return result


def _prompt(embedder: Embedder, row: Record, side: Side) -> str:
    return embedder.spec.prompts.prompt(side, name=row.source, task_type=row.task_type)


class ContrastiveBatches(Sequence[ContrastiveBatch]):
    """The batches of a training; batch i is read from the disk when it is accessed.

    Args:
        sources: the rows that the draws are from.
    """

    def __init__(self, store: TokenStore, sources: Mapping[str, SourceRows], draws: Sequence[Draw]) -> None:
        self.store, self.sources, self.draws = store, sources, draws

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: Any) -> Any:
        draw = self.draws[index]
        source = self.sources[draw.source]
        rows = self.store.rows(source.numbers[draw.rows])
        turns = [draw.epoch % len(row.positives) for row in rows]
        return ContrastiveBatch(
            step=index,
            source=draw.source,
            rows=[row.id for row in rows],
            ids=[
                *(row.query_ids for row in rows),
                *(row.positive_ids[turn] for row, turn in zip(rows, turns, strict=True)),
                *(ids for row in rows for ids in row.negative_ids),
            ],
            query_count=len(rows),
            languages=[row.row_group.language for row in rows],
            task_types=[row.row_group.task_type for row in rows],
            row_sources=[row.row_group.source for row in rows],
            query_index=[*range(len(rows)), *(i for i, row in enumerate(rows) for _ in row.negatives)],
            known_positives=[row.positives for row in rows],
            document_texts=[
                *(row.positives[turn] for row, turn in zip(rows, turns, strict=True)),
                *(text for row in rows for text in row.negatives),
            ],
            query_texts=[row.query for row in rows],
            scores=[row.score for row in rows if row.score is not None] if source.row_group.scored else None,
            teacher_scores=[_teacher_scores(row, turn) for row, turn in zip(rows, turns, strict=True)],
        )


def _teacher_scores(row: TokenisedRow, turn: int) -> list[float] | None:
    """Return a teacher's scores of a row's documents in a batch, its positive first, if the row has them."""
    if row.positive_scores is None or row.negative_scores is None or not row.negatives:
        return None
    return [row.positive_scores[turn], *row.negative_scores[: len(row.negatives)]]

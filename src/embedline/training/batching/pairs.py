"""Records as token ids, with their prompts and cut as their stage cuts them, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedline.config.training import ContrastiveConfig
from embedline.models.embedder import Embedder
from embedline.models.prompts import Side, is_long
from embedline.training.batching.batches import Draw
from embedline.training.batching.records import Record
from embedline.training.batching.rows import SourceRows
from embedline.training.batching.tokens import Ids, TokenStore, write_tokens
from embedline.training.engine import processes


def tokenised(
    embedder: Embedder, records: Iterable[Record], config: ContrastiveConfig, folder: Path
) -> TokenStore:
    """The records of a stage with their token ids, as they are cut in its batches.

    The first process writes them to `folder`, unless they are there: a resumed training finds them.
    """

    def ids(rows: Sequence[Record]) -> Ids:
        queries = token_ids(embedder, rows, [row.query for row in rows], "query", config)
        positives = [row.positives for row in rows]
        # A scored pair is ranked among others as it is: it has no negatives.
        negatives = [[] if row.score is not None else row.negatives[: config.negatives] for row in rows]
        return queries, of_rows(rows, positives), of_rows(rows, negatives)

    def of_rows(rows: Sequence[Record], texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        owners = [row for row, own in zip(rows, texts, strict=True) for _ in own]
        flat = iter(token_ids(embedder, owners, [text for own in texts for text in own], "document", config))
        return [[next(flat) for _ in own] for own in texts]

    if processes.is_first() and not folder.exists():
        write_tokens(folder, records, ids)
    processes.told(None)  # the others wait for it
    return TokenStore(folder)


def token_ids(
    embedder: Embedder, rows: Sequence[Record], texts: Sequence[str], side: Side, config: ContrastiveConfig
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
            words = [_prompt(embedder, rows[i], side) + texts[i] for i in places]
        limit = min(documents if long else spec.query_length, most)
        for place, ids in zip(places, embedder.tokenize(words, max_length=limit), strict=True):
            found[place] = ids
    return found


def _prompt(embedder: Embedder, row: Record, side: Side) -> str:
    return embedder.spec.prompts.prompt(side, name=row.source, task_type=row.task_type)


class Batches(Sequence[Any]):
    """Batch i, read when it is asked for.

    A batch says: the `step` it is for, its `source`, the names of its `rows`, token `ids` of all texts
    (queries first), how many `queries`, the `languages`, `task_types` and `row_sources` of the rows, the
    `owner` of each document, all `answers` of each query, and the `texts` of documents and queries. Where the
    rows have `scores`, each query has one document. `told` is what a teacher said of each query's own
    documents, its positive first; None where the row does not bring it, or has no negatives.

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
        turns = [draw.epoch % len(row["positives"]) for row in rows]
        owner = [*range(len(rows)), *(i for i, row in enumerate(rows) for _ in row["negatives"])]
        return {
            "step": index,
            "source": draw.source,
            "rows": [row["id"] for row in rows],
            "ids": [
                *(row["query_ids"] for row in rows),
                *(row["positive_ids"][turn] for row, turn in zip(rows, turns, strict=True)),
                *(ids for row in rows for ids in row["negative_ids"]),
            ],
            "queries": len(rows),
            "languages": [row["kind"].language for row in rows],
            "task_types": [row["kind"].task_type for row in rows],
            "row_sources": [row["kind"].source for row in rows],
            "owner": owner,
            "answers": [row["positives"] for row in rows],
            "texts": [
                *(row["positives"][turn] for row, turn in zip(rows, turns, strict=True)),
                *(text for row in rows for text in row["negatives"]),
            ],
            "query_texts": [row["query"] for row in rows],
            "scores": [row["score"] for row in rows] if source.kind.scored else None,
            "told": [_told(row, turn) for row, turn in zip(rows, turns, strict=True)],
        }


def _told(row: Mapping[str, Any], turn: int) -> list[float] | None:
    positives, negatives = row["positive_scores"], row["negative_scores"]
    if positives is None or negatives is None or not row["negatives"]:
        return None
    return [positives[turn], *negatives[: len(row["negatives"])]]

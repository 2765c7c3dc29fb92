"""Records with their token ids in an Arrow file, which is mapped into memory: a training of any number of
records holds those of one batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedline.artifacts.record import write_json
from embedline.errors import StepError
from embedline.training.batching.records import Record
from embedline.training.batching.rows import Columns, Kind

# Of each record: the ids of its query, of each of its positives, of each of its negatives.
Ids = tuple[list[list[int]], list[list[list[int]]], list[list[list[int]]]]
Tokenise = Callable[[Sequence[Record]], Ids]

ROWS, KINDS = "rows.arrow", "kinds.json"
# Rows written at a time, which bounds the memory of writing; and of a block of the file.
BLOCK = 8192

_TEXTS, _SCORES = pa.list_(pa.string()), pa.list_(pa.float64())
_IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "query": pa.string(),
        "positives": _TEXTS,
        "negatives": _TEXTS,
        "score": pa.float64(),
        "positive_scores": _SCORES,
        "negative_scores": _SCORES,
        "query_ids": _IDS,
        "positive_ids": pa.list_(_IDS),
        "negative_ids": pa.list_(_IDS),
        "kind": pa.int32(),
        "longest": pa.int32(),
        "tokens": pa.int32(),
    }
)


def write_tokens(folder: Path, records: Iterable[Record], tokenise: Tokenise) -> None:
    """Write the folder that `TokenStore` reads; it is there when it is whole.

    Args:
        tokenise: is asked for some records at a time.

    Raises:
        StepError: the disk does not take them.
    """
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    kinds: dict[Kind, int] = {}
    ranges: dict[str, tuple[float, float]] = {}
    given = iter(records)
    with pa.OSFile(str(draft / ROWS), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        while rows := list(islice(given, BLOCK)):
            block = _block(rows, tokenise(rows), kinds)
            try:
                writer.write_batch(block)
            except OSError as error:
                raise StepError(
                    f"the tokenised records could not be written ({error}).",
                    where=str(folder),
                    fix="Free some space, and start the run again.",
                ) from error
            for row in rows:
                if row.score is not None:
                    lowest, highest = ranges.get(row.source, (row.score, row.score))
                    ranges[row.source] = (min(lowest, row.score), max(highest, row.score))
    write_json(draft / KINDS, {"kinds": [asdict(kind) for kind in kinds], "score_ranges": ranges})
    draft.rename(folder)


def _block(rows: list[Record], ids: Ids, kinds: dict[Kind, int]) -> pa.RecordBatch:
    queries, positives, negatives = ids
    lengths = [
        (len(query), [len(text) for text in answers], [len(text) for text in others])
        for query, answers, others in zip(*ids, strict=True)
    ]
    values = {
        "id": [row.id for row in rows],
        "query": [row.query for row in rows],
        "positives": [row.positives for row in rows],
        "negatives": [row.negatives[: len(own)] for row, own in zip(rows, negatives, strict=True)],
        "score": [row.score for row in rows],
        "positive_scores": [row.positive_scores for row in rows],
        "negative_scores": [row.negative_scores for row in rows],
        "query_ids": queries,
        "positive_ids": positives,
        "negative_ids": negatives,
        "kind": [kinds.setdefault(_kind(row), len(kinds)) for row in rows],
        "longest": [max(query, *answers, *others) for query, answers, others in lengths],
        "tokens": [query + max(answers) + sum(others) for query, answers, others in lengths],
    }
    return pa.RecordBatch.from_pydict(values, schema=SCHEMA)


def _kind(row: Record) -> Kind:
    return Kind(
        row.source,
        row.task_type,
        row.language,
        scored=row.score is not None,
        negatives=bool(row.negatives),
        told=bool(row.positive_scores and row.negative_scores),
    )


class TokenStore:
    """What `write_tokens` left in a folder; rows are read from the disk when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / ROWS)))
        self._about = json.loads((folder / KINDS).read_text(encoding="utf-8"))
        self.kinds = [Kind(**values) for values in self._about["kinds"]]

    def columns(self) -> Columns:
        """What batches are composed by (12 bytes a row)."""
        ranges = {name: (low, high) for name, (low, high) in self._about["score_ranges"].items()}
        kind, longest, tokens = (self._column(name) for name in ("kind", "longest", "tokens"))
        return Columns(self.kinds, kind, longest, tokens, ranges)

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """The rows of these numbers, in their order: a record's fields and its ids, and its `kind`."""
        blocks, places = np.divmod(np.asarray(numbers, dtype=np.int64), BLOCK)
        order = np.argsort(blocks, kind="stable")
        found: list[dict[str, Any]] = [{}] * len(order)
        for chosen in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            block = self._file.get_batch(int(blocks[chosen[0]])).take(pa.array(places[chosen]))
            for place, row in zip(chosen, block.to_pylist(), strict=True):
                found[place] = {**row, "kind": self.kinds[row["kind"]]}
        return found

    def _column(self, name: str) -> np.ndarray:
        blocks = (self._file.get_batch(i).column(name) for i in range(self._file.num_record_batches))
        parts = [np.zeros(0, dtype=np.int32), *(block.to_numpy() for block in blocks)]
        joined: np.ndarray = np.concatenate(parts)
        return joined

"""Records with their token ids in an Arrow file that is mapped into memory.

A training of any number of records holds those of one batch in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedline.artifacts.durable import put_in_place, write_json
from embedline.artifacts.manifest import read_artifact, write_manifest
from embedline.errors import InputError, StepError
from embedline.training.batching.records import Record
from embedline.training.batching.rows import Columns, RowGroup

ROWS, ROW_GROUPS = "rows.arrow", "kinds.json"
# Rows written at a time, which bounds the memory of writing, and rows of a block of the file.
_KIND = "tokens"
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


@dataclass(frozen=True)
class TokenIds:
    """The token ids of some records: of each query, and of each of its positives and negatives."""

    queries: list[list[int]]
    positives: list[list[list[int]]]
    negatives: list[list[list[int]]]


@dataclass(frozen=True)
class TokenisedRow:
    """One record with its token ids, as it is read from the file.

    Args:
        positive_scores, negative_scores: a teacher's scores, where the record has them.
        negatives: as many as the stage uses.
    """

    id: str
    query: str
    positives: list[str]
    negatives: list[str]
    score: float | None
    positive_scores: list[float] | None
    negative_scores: list[float] | None
    query_ids: list[int]
    positive_ids: list[list[int]]
    negative_ids: list[list[int]]
    row_group: RowGroup


Tokenise = Callable[[Sequence[Record]], TokenIds]


def write_tokens(folder: Path, records: Iterable[Record], tokenise: Tokenise) -> None:
    """Write the folder that `TokenStore` reads; it gets its name when it is complete.

    Args:
        tokenise: called with some records at a time.

    Raises:
        StepError: the folder cannot be written.
    """
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    row_groups: dict[RowGroup, int] = {}
    ranges: dict[str, tuple[float, float]] = {}
    remaining = iter(records)
    with pa.OSFile(str(draft / ROWS), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        while rows := list(islice(remaining, BLOCK)):
            block = _block(rows, tokenise(rows), row_groups)
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
    write_json(
        draft / ROW_GROUPS,
        {"kinds": [asdict(row_group) for row_group in row_groups], "score_ranges": ranges},
    )
    write_manifest(draft, kind=_KIND, step="", key="")
    put_in_place(draft, folder)


def are_written(folder: Path) -> bool:
    """Return whether `write_tokens` wrote this folder; one that was damaged since is removed."""
    try:
        read_artifact(folder, _KIND)
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _block(rows: list[Record], ids: TokenIds, row_groups: dict[RowGroup, int]) -> pa.RecordBatch:
    lengths = [
        (len(query), [len(text) for text in positives], [len(text) for text in negatives])
        for query, positives, negatives in zip(ids.queries, ids.positives, ids.negatives, strict=True)
    ]
    values = {
        "id": [row.id for row in rows],
        "query": [row.query for row in rows],
        "positives": [row.positives for row in rows],
        "negatives": [row.negatives[: len(own)] for row, own in zip(rows, ids.negatives, strict=True)],
        "score": [row.score for row in rows],
        "positive_scores": [row.positive_scores for row in rows],
        "negative_scores": [row.negative_scores for row in rows],
        "query_ids": ids.queries,
        "positive_ids": ids.positives,
        "negative_ids": ids.negatives,
        "kind": [row_groups.setdefault(_row_group(row), len(row_groups)) for row in rows],
        "longest": [max(query, *positives, *negatives) for query, positives, negatives in lengths],
        "tokens": [query + max(positives) + sum(negatives) for query, positives, negatives in lengths],
    }
    return pa.RecordBatch.from_pydict(values, schema=SCHEMA)


def _row_group(row: Record) -> RowGroup:
    return RowGroup(
        row.source,
        row.task_type,
        row.language,
        scored=row.score is not None,
        negatives=bool(row.negatives),
        teacher_scores=bool(row.positive_scores and row.negative_scores),
    )


class TokenStore:
    """A folder that `write_tokens` wrote; rows are read from the disk when they are needed."""

    def __init__(self, folder: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / ROWS)))
        content = json.loads((folder / ROW_GROUPS).read_text(encoding="utf-8"))
        self.row_groups = [RowGroup(**values) for values in content["kinds"]]
        self._score_ranges = {name: (low, high) for name, (low, high) in content["score_ranges"].items()}

    def columns(self) -> Columns:
        """Read the properties that batches are composed by (12 bytes a row)."""
        row_group, longest, tokens = (self._column(name) for name in ("kind", "longest", "tokens"))
        return Columns(self.row_groups, row_group, longest, tokens, self._score_ranges)

    def rows(self, numbers: np.ndarray) -> list[TokenisedRow]:
        """Read the rows of these numbers, in their order."""
        blocks, positions = np.divmod(np.asarray(numbers, dtype=np.int64), BLOCK)
        order = np.argsort(blocks, kind="stable")
        rows: dict[int, TokenisedRow] = {}
        for chosen in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            block = self._file.get_batch(int(blocks[chosen[0]])).take(pa.array(positions[chosen]))
            for index, row in zip(chosen.tolist(), block.to_pylist(), strict=True):
                rows[index] = self._row(row)
        return [rows[index] for index in range(len(order))]

    def _row(self, values: dict[str, Any]) -> TokenisedRow:
        own = {name: value for name, value in values.items() if name not in {"kind", "longest", "tokens"}}
        return TokenisedRow(**own, row_group=self.row_groups[values["kind"]])

    def _column(self, name: str) -> np.ndarray:
        blocks = (self._file.get_batch(i).column(name) for i in range(self._file.num_record_batches))
        parts = [np.zeros(0, dtype=np.int32), *(block.to_numpy() for block in blocks)]
        joined: np.ndarray = np.concatenate(parts)
        return joined

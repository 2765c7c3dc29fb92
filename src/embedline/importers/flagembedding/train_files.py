"""Columns of FlagEmbedding's training files that steer its training: `prompt`, `type` and their like.

FlagEmbedding 1.4.2 reads them in `abc/finetune/embedder/AbsDataset.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedline.quoting import home_expanded

PARSED_ROWS = 100_000  # of each file, to look at their columns; the other rows are only counted
KNOWN = frozenset({"query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type"})
# Both sides get the prompt, as with our task types; the documents of symmetric_class do not.
TASK_TYPES = {"symmetric_sts": "sts", "symmetric_clustering": "clustering"}
# Of what FlagEmbedding reads of other columns, nothing has a preset key for a single source.
OTHER = {
    "batch_size": "supervised.batch holds for all sources",
    "train_group_size": "supervised.negatives holds for all sources",
    "category": "training with examples inside the prompt is not supported",
}
UNUSED = "FlagEmbedding does not read it either"


@dataclass
class TrainFile:
    """One training file and what its rows say.

    Args:
        rows: number of rows, at most the command's limit; None when the file is not on this machine.
        prompts, types: the values of these columns and their rows; None counts the rows without one.
        columns: rows that have a value in each column.
        several_negatives: rows of type only_1neg that have more than one negative.
    """

    path: Path
    rows: int | None = None
    prompts: Counter[str | None] = field(default_factory=Counter)
    types: Counter[str | None] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    several_negatives: int = 0

    @property
    def prompt(self) -> str | None:
        """Return the prompt of all rows; None when there is none, or they differ."""
        return next(iter(self.prompts)) if len(self.prompts) == 1 else None

    @property
    def task_type(self) -> str | None:
        """Return our task type for all rows; None when there is none, or they differ."""
        (only,) = self.types if len(self.types) == 1 else (None,)
        return TASK_TYPES.get(only or "")


def read_train_file(path: Path, limit: int | None) -> TrainFile:
    """Read the columns of a file's rows, at most `limit` of them; a malformed row is passed over."""
    file = TrainFile(path)
    located = home_expanded(path)
    if not located.is_file():
        return file
    file.rows = 0
    with located.open("rb") as lines:
        for line in lines:
            if limit is not None and file.rows >= limit:
                break
            if line.strip():
                file.rows += 1
                if file.rows <= PARSED_ROWS:
                    _count(file, line)
    return file


def _count(file: TrainFile, line: bytes) -> None:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return
    if not isinstance(row, dict):
        return
    file.columns.update(name for name, value in row.items() if value not in (None, "", []))
    file.prompts[_text(row.get("prompt"))] += 1
    kind = _text(row.get("type"))
    file.types[kind] += 1
    negatives = row.get("neg")
    if kind == "only_1neg" and isinstance(negatives, list) and len(negatives) > 1:
        file.several_negatives += 1


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def without_counterpart(
    file: TrainFile, *, with_prompts: bool, with_types: bool
) -> Iterator[tuple[str, str]]:
    """Yield each column whose values are not in the preset: its name and file, and the reason with counts.

    Args:
        with_prompts, with_types: whether FlagEmbedding reads these columns in this command.
    """
    seen = min(file.rows or 0, PARSED_ROWS)
    of = f" of the first {seen:,}" if file.rows and file.rows > seen else f" of {seen:,}"

    def entry(column: str, rows: int, reason: str) -> tuple[str, str]:
        return f"{column} in {file.path.name}", f"{rows:,}{of} rows; {reason}"

    if rows := file.columns["prompt"]:
        if not with_prompts:
            flags = "--query_instruction_for_retrieval or --same_dataset_within_batch"
            yield entry("prompt", rows, f"FlagEmbedding reads it only with {flags}")
        elif file.prompt is None:
            kinds = len(file.prompts)
            yield entry(
                "prompt", rows, f"{kinds} different ones; a source has one: divide the file by prompt"
            )
    for kind, rows in file.types.items():
        if kind is not None and (reason := _about_type(file, kind, with_types)):
            yield entry(f"type {kind}", rows, reason)
    for column, rows in file.columns.items():
        if column not in KNOWN:
            yield entry(column, rows, OTHER.get(column, UNUSED))


def _about_type(file: TrainFile, kind: str, with_types: bool) -> str:
    """Return why a type is not, or not wholly, in the preset; empty when it is."""
    if kind == "normal":
        return ""
    if not with_types:
        return "FlagEmbedding reads it only with --same_dataset_within_batch"
    half = "half the batch, as FlagEmbedding takes, holds for no single source"
    if kind in TASK_TYPES:
        mixed = f"{len(file.types)} different ones; a source has one task_type: divide the file by type; "
        return f"{mixed if file.task_type is None else ''}{half}"
    if kind == "symmetric_class":
        documents = (
            "task_type classification would give its documents the prompt, which FlagEmbedding does not"
        )
        return f"{documents}; {half}"
    if kind == "only_1neg":
        several = file.several_negatives
        return f"{several:,} have more negatives, and use up to supervised.negatives" if several else ""
    return half if "symmetric" in kind else "FlagEmbedding has no such type"

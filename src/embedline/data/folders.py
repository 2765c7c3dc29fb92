"""A folder as a source: the files that are read, by kind and split, and those that are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from embedline.data.hub import files_of_split, has_configs, is_card
from embedline.errors import InputError

FILES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".arrow", ".csv", ".tsv")  # files of rows
TEXTS = (".txt", ".md")
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_SPLITS = frozenset({"train", "test", "validation", "valid", "val", "dev"})
_SHARD = re.compile(r"-\d+-of-\d+$")


class FolderFiles(NamedTuple):
    """The files of a folder that a source reads, in path order, and the reason for each other file."""

    read: list[Path]
    skipped: dict[Path, str]


def folder_files(folder: Path, split: str, *, texts: bool, configuration: str | None = None) -> FolderFiles:
    """Choose the files of a source that is a folder.

    A dataset card's `configs` (README.md) name the files of each split. Without them every file of a known
    kind is read. A file belongs to the split that it, or a folder above it, is called (`test.jsonl`,
    `train-00000-of-00002.parquet`, `dev/a.csv`), else to `train`; so `test_questions.csv` is read.

    Args:
        texts: whether texts (.txt, .md) are passages; records need queries.

    Raises:
        InputError: there is nothing to read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if has_configs(folder):
        named = set(files_of_split(folder, split, configuration))
        skipped = dict.fromkeys(files, f"not of the split {split!r} in README.md's configs")
        return FolderFiles(
            [path for path in files if path in named],
            {path: reason for path, reason in skipped.items() if path not in named},
        )
    reasons = {path: _reason(path, folder, split, texts) for path in files}
    found = FolderFiles(
        [path for path, reason in reasons.items() if not reason],
        {path: reason for path, reason in reasons.items() if reason},
    )
    if not found.read:
        raise _nothing(folder, split, files)
    return found


def is_kind(path: Path, suffixes: Sequence[str]) -> bool:
    """Return whether a file's name ends in one of the suffixes, in any case."""
    return path.name.lower().endswith(tuple(suffixes))


def _reason(path: Path, folder: Path, split: str, texts: bool) -> str:
    """Return why a file is not read; empty when it is."""
    inside = path.relative_to(folder)
    if any(part.startswith((".", "__")) for part in inside.parts):
        return "hidden"
    if path.name in _METADATA or is_card(path):
        return "metadata"
    if is_kind(path, FILES):
        own = _split(inside, split)
        return "" if own == split else f"of the split {own!r}"
    if is_kind(path, TEXTS):
        return "" if texts else "a text has no query"
    return "a kind that is not read"


def _split(inside: Path, split: str) -> str:
    """Return the split that a file, or a folder above it, is called; train when neither is."""
    stem = inside.name.partition(".")[0]
    names = [_SHARD.sub("", stem), *reversed(inside.parts[:-1])]
    return next((name for name in names if name in _SPLITS or name == split), "train")


def _nothing(folder: Path, split: str, files: Sequence[Path]) -> InputError:
    """Make the error for a folder without a file to read."""
    data = [path for path in files if is_kind(path, FILES)]
    if data:
        splits = ", ".join(sorted({_split(path.relative_to(folder), split) for path in data}))
        return InputError(
            f"has no file of the split {split!r}.", where=str(folder), fix=f"Its files are of: {splits}."
        )
    if any(is_kind(path, TEXTS) for path in files):
        return InputError(
            "a folder of texts has no queries.", where=str(folder), fix="Name it in data.corpus instead."
        )
    return InputError("the folder holds neither data files nor texts.", where=str(folder))

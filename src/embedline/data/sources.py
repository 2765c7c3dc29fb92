"""Location and reading of sources: one stream of rows, whatever the format."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from embedline.data.delimited import count_tsv, read_csv, read_tsv, refuse_stated_separator
from embedline.data.folders import FILES, TEXTS, folder_files, is_kind
from embedline.data.hub import (
    PREFIX,
    count_parquet,
    has_configs,
    hub_name,
    read_columns,
    read_folder,
    read_hub,
)
from embedline.data.lines import Line, count_jsonl, read_json, read_jsonl
from embedline.data.tally import Tally
from embedline.data.texts import read_text_file
from embedline.errors import InputError
from embedline.quoting import home_expanded


def is_hub(path: str) -> bool:
    return path.startswith(PREFIX)


def locate(path: str, root: Path) -> Path:
    """Return the file or folder of a source; relative paths start at `root`.

    Raises:
        InputError: there is no such file; the message suggests the nearest name in its folder.
    """
    located = root / home_expanded(path)
    if located.exists():
        return located
    names = [p.name for p in located.parent.iterdir()] if located.parent.is_dir() else []
    near = difflib.get_close_matches(located.name, names, n=1)
    fix = f"Did you mean {near[0]!r}?" if near else "Relative paths start at data.root."
    raise InputError("does not exist.", where=str(located), fix=fix)


def source_files(path: str, root: Path) -> list[Path]:
    """List the files that a source is read from, in path order; none for a dataset that only the hub has.

    Raises:
        InputError: it does not exist.
    """
    if is_hub(path):
        copy = root / hub_name(path).name
        return sorted(p for p in copy.rglob("*") if p.is_file()) if copy.is_dir() else []
    located = locate(path, root)
    return sorted(p for p in located.rglob("*") if p.is_file()) if located.is_dir() else [located]


def source_name(name: str, path: str) -> str:
    """Return the name of a source: its own, else the stem of its file or folder."""
    if name:
        return name
    stem = Path(path.removeprefix(PREFIX).partition("@")[0]).name
    for suffix in sorted(FILES, key=len, reverse=True):
        if stem.endswith(suffix):
            return stem[: -len(suffix)]
    return stem


def read_source(
    path: str, root: Path, split: str = "train", *, texts: bool = False, tally: Tally | None = None
) -> Iterator[Line]:
    """Read the rows of one source, in order; of a folder, file by file in path order (`folder_files`).

    Args:
        split: of a hub dataset or a folder.
        texts: whether .txt and .md files of a folder are accepted (a corpus; records need queries).
        tally: counts what is read.

    Raises:
        InputError: it does not exist, is of an unknown kind, or cannot be read.
    """
    tally = Tally() if tally is None else tally
    place = _place(path, root)
    if place is None:
        return tally.counted(read_hub(path, split))
    if not place.is_dir():
        return tally.counted(read_file(place, texts=texts))
    configuration = _configuration(path, place)
    found = folder_files(place, split, texts=texts, configuration=configuration)
    tally.folder = place
    tally.skipped |= {str(file): reason for file, reason in found.skipped.items()}
    if has_configs(place):
        for file in found.read:
            if is_kind(file, (".csv", ".tsv")):
                refuse_stated_separator(file)
        return tally.counted(read_folder(place, split, configuration))
    tally.files |= {str(file): 0 for file in found.read}
    return tally.counted(chain.from_iterable(map(read_file, found.read)))


def read_file(path: Path, *, texts: bool = True) -> Iterator[Line]:
    """Read the rows of one file.

    Args:
        texts: whether a text is accepted.

    Raises:
        InputError: it is of an unknown kind, or cannot be read.
    """
    if is_kind(path, (".jsonl", ".jsonl.gz")):
        return read_jsonl(path)
    if is_kind(path, (".json", ".json.gz")):
        return read_json(path)
    if is_kind(path, (".parquet", ".arrow")):
        return read_columns(path)
    if is_kind(path, (".csv",)):
        return read_csv(path)
    if is_kind(path, (".tsv",)):
        return read_tsv(path)
    if texts and is_kind(path, TEXTS):
        return read_text_file(path)
    raise InputError(
        "is of a kind that is not read.",
        where=str(path),
        fix=f"Known kinds: {', '.join(FILES)}, a folder.",
    )


def count_rows(
    path: str,
    root: Path,
    split: str = "train",
    *,
    texts: bool = False,
    at_most: int | None = None,
    cheaply: bool = False,
) -> int | None:
    """Count the rows that `read_source` gives, malformed ones included.

    Args:
        texts: as in `read_source`.
        at_most: stop there; the result is no larger.
        cheaply: do not read texts, a folder with a card's configs, a hub dataset, nor a whole file whose rows
            have to be parsed (CSV).

    Returns:
        The rows; None for a dataset that only the hub has, and for what cannot be counted cheaply.

    Raises:
        InputError: as `read_source`.

    >>> count_rows("faq.jsonl", Path("data"))  # doctest: +SKIP
    1200
    """
    place = _place(path, root)
    if place is None:
        return None
    if not place.is_dir():
        return _count_file(place, at_most, cheaply)
    if has_configs(place):
        return None if cheaply else sum(1 for _ in islice(read_source(path, root, split), at_most))
    total = 0
    for file in folder_files(place, split, texts=texts, configuration=_configuration(path, place)).read:
        rows = _count_file(file, None if at_most is None else at_most - total, cheaply)
        if rows is None:
            return None
        total += rows
    return total


def _count_file(file: Path, at_most: int | None, cheaply: bool) -> int | None:
    if is_kind(file, (".parquet",)):
        rows = count_parquet(file)
        return rows if at_most is None else min(rows, at_most)
    if is_kind(file, (".jsonl", ".jsonl.gz")):
        return count_jsonl(file, at_most)
    if is_kind(file, (".tsv",)):
        return count_tsv(file, at_most)
    if cheaply and (at_most is None or is_kind(file, TEXTS)):
        return None
    return sum(1 for _ in islice(read_file(file), at_most))


def _place(path: str, root: Path) -> Path | None:
    """Return the file or folder of a source; None for a dataset that only the hub has."""
    if not is_hub(path):
        return locate(path, root)
    copy = root / hub_name(path).name
    return copy if copy.is_dir() else None


def _configuration(path: str, folder: Path) -> str | None:
    """Return the configuration of a hub dataset's copy.

    Raises:
        InputError: the copy has no card that describes it.
    """
    configuration = hub_name(path).configuration if is_hub(path) else None
    if configuration is not None and not has_configs(folder):
        raise InputError(
            f"has no configuration {configuration!r}: its README.md names none.",
            where=str(folder),
            fix="Copy the dataset with its README.md, or leave the configuration out.",
        )
    return configuration

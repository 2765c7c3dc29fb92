"""Location and reading of sources: one stream of rows, whatever the format."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from embedline.data.hub import PREFIX, count_parquet, hub_name, read_folder, read_hub, read_parquet
from embedline.data.lines import Line, count_jsonl, read_csv, read_jsonl
from embedline.data.texts import read_texts, text_files
from embedline.errors import InputError

FILES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")
_DATA = (*FILES, ".json", ".arrow")


def is_hub(path: str) -> bool:
    return path.startswith(PREFIX)


def locate(path: str, root: Path) -> Path:
    """Return the file or folder of a source; relative paths start at `root`.

    Raises:
        InputError: there is no such file; the message suggests the nearest name in its folder.
    """
    located = root / Path(path).expanduser()
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


def read_source(path: str, root: Path, split: str = "train", *, texts: bool = False) -> Iterator[Line]:
    """Read the rows of one source, in order.

    Args:
        split: of a hub dataset or a folder laid out like one.
        texts: whether a folder of .txt and .md files is accepted (a corpus; records need queries).

    Raises:
        InputError: it does not exist, is of an unknown kind, or cannot be read.
    """
    if is_hub(path):
        return read_hub(path, split, root)
    located = locate(path, root)
    if located.is_dir():
        return _read_folder(located, split, texts)
    name = located.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return read_jsonl(located)
    if name.endswith(".parquet"):
        return read_parquet(located)
    if name.endswith((".csv", ".tsv")):
        return read_csv(located, "\t" if name.endswith(".tsv") else ",")
    raise InputError(
        "is of a kind that is not read.",
        where=str(located),
        fix=f"Known kinds: {', '.join(FILES)}, a folder.",
    )


def count_rows(
    path: str, root: Path, split: str = "train", *, at_most: int | None = None, cheaply: bool = False
) -> int | None:
    """Count the rows that `read_source` gives, malformed ones included.

    Args:
        at_most: stop there; the result is no larger.
        cheaply: do not read a folder or a hub dataset, nor a whole file whose rows have to be parsed (CSV).

    Returns:
        The rows; None for a dataset that only the hub has, and for what cannot be counted cheaply.

    Raises:
        InputError: as `read_source`.

    >>> count_rows("faq.jsonl", Path("data"))  # doctest: +SKIP
    1200
    """
    if is_hub(path) and (cheaply or not source_files(path, root)):
        return None
    file = Path() if is_hub(path) else locate(path, root)
    name = file.name.lower() if file.is_file() else ""
    if name.endswith(".parquet"):
        rows = count_parquet(file)
        return rows if at_most is None else min(rows, at_most)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return count_jsonl(file, at_most)
    if cheaply and (at_most is None or not file.is_file()):
        return None
    return sum(1 for _ in islice(read_source(path, root, split, texts=True), at_most))


def _read_folder(folder: Path, split: str, texts: bool) -> Iterator[Line]:
    if any(p.name.lower().endswith(_DATA) or p.name.lower().endswith(".json.gz") for p in folder.rglob("*")):
        return read_folder(folder, split)
    if not text_files(folder):
        raise InputError("the folder holds neither data files nor texts.", where=str(folder))
    if not texts:
        raise InputError(
            "a folder of texts has no queries.", where=str(folder), fix="Name it in data.corpus instead."
        )
    return read_texts(folder)

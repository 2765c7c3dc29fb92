"""Readers of hub datasets, folders whose card names the files, Parquet and Arrow, through `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from embedline.data.lines import Line
from embedline.errors import InputError, first_line

PREFIX = "hub:"
_PATTERN = re.compile(r"[*?\[\]{}!]|::|://")
_FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)


class HubName(NamedTuple):
    """A dataset of the hub: ORG/NAME, and its configuration and revision where the source names them."""

    name: str
    configuration: str | None
    revision: str | None


def hub_name(path: str) -> HubName:
    """Parse `hub:ORG/NAME[/CONFIG][@REVISION]`.

    Raises:
        InputError: it has no organisation or no name.
    """
    name, _, revision = path.removeprefix(PREFIX).partition("@")
    parts = name.split("/")
    if len(parts) not in {2, 3} or not all(parts):
        raise InputError(
            "is not a hub dataset.", where=path, fix="Write hub:ORG/NAME, hub:ORG/NAME/CONFIG or …@REVISION."
        )
    return HubName("/".join(parts[:2]), parts[2] if len(parts) == 3 else None, revision or None)


def read_hub(path: str, split: str) -> Iterator[Line]:
    """Read the rows of a dataset that only the hub has.

    Raises:
        InputError: the dataset, its configuration or the split cannot be loaded.
    """
    name, configuration, revision = hub_name(path)
    fix = f"Check the name, the split and the network, or put a copy at {name} below data.root."
    return _rows(f"{path}[{split}]", fix, path=name, name=configuration, revision=revision, split=split)


def has_configs(folder: Path) -> bool:
    """Return whether the folder's README.md is a dataset card with `configs`, which name its files."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    found = _FRONT_MATTER.match(readme.read_text(encoding="utf-8-sig", errors="replace"))
    try:
        card = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, RecursionError):
        return False
    return isinstance(card, dict) and bool(card.get("configs"))


def is_card(path: Path) -> bool:
    """Return whether a file is a dataset card: a README.md with front matter."""
    if path.name.lower() != "readme.md":
        return False
    return _FRONT_MATTER.match(path.read_text(encoding="utf-8-sig", errors="replace")) is not None


def read_folder(folder: Path, split: str, configuration: str | None = None) -> Iterator[Line]:
    """Read the rows of a split from the files that the card's `configs` name.

    Raises:
        InputError: the folder, its configuration or the split cannot be loaded.
    """
    fix = "Check the split, the README.md's configs and the files."
    with plain_name(folder) as plain:
        yield from _rows(
            f"{folder}[{split}]", fix, path=str(plain), name=configuration, split=split, streaming=True
        )


def files_of_split(folder: Path, split: str, configuration: str | None = None) -> list[Path]:
    """List the files that `read_folder` reads; none for a split that the card does not name."""
    import datasets

    try:
        with plain_name(folder) as plain:
            builder = datasets.load_dataset_builder(str(plain), configuration)
            files = (builder.config.data_files or {}).get(split, ())
            return [folder / Path(file).relative_to(plain) for file in files]
    except Exception:  # `read_folder` raises it with its reason
        return []


def splits_of(folder: Path) -> dict[str, list[str]]:
    """Return the configurations named in the README.md of a folder in hub layout, and the splits of each.

    Raises:
        InputError: they name files that are not there.
    """
    if not has_configs(folder):
        return {}
    import datasets

    try:
        with plain_name(folder) as plain:
            names = datasets.get_dataset_config_names(str(plain))
            return {name: datasets.get_dataset_split_names(str(plain), name) for name in names}
    except Exception as error:  # `datasets` raises dozens of kinds
        fix = "Check its configs and the files that they name."
        where = str(folder / "README.md")
        raise InputError(f"cannot be used ({first_line(error)}).", where=where, fix=fix) from error


def read_columns(path: Path) -> Iterator[Line]:
    """Read the rows of one Parquet or Arrow file.

    Raises:
        InputError: it cannot be read.
    """
    fix = "Check the file, or fetch it again."
    kind = path.suffix.lower().removeprefix(".")
    with plain_name(path) as plain:
        yield from _rows(str(path), fix, path=kind, data_files=str(plain), split="train", streaming=True)


def count_parquet(path: Path) -> int:
    """Return the number of rows that a Parquet file's footer states.

    Raises:
        InputError: it is not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        fix = "Check the file, or fetch it again."
        raise InputError(f"cannot be read ({first_line(error)}).", where=str(path), fix=fix) from error


@contextmanager
def plain_name(path: Path) -> Iterator[Path]:
    """Yield a path of the same file or folder in which `datasets` reads no pattern and no chain of protocols.

    It takes a path for a pattern and reads all files that match, also of other folders. Where a path has
    such characters, its files are read through links.
    """
    absolute = path.absolute()
    if not _PATTERN.search(str(absolute)):
        yield absolute
        return
    with TemporaryDirectory(prefix="embedline-") as folder:
        plain = Path(folder).resolve() / f"data{path.suffix}"
        inside = {file: file.relative_to(absolute) for file in absolute.rglob("*") if file.is_file()}
        for file, name in (inside or {absolute: Path()}).items():  # `datasets` resolves links of folders
            (plain / name).parent.mkdir(parents=True, exist_ok=True)
            (plain / name).symlink_to(file)
        yield plain


def _rows(where: str, fix: str, **arguments: Any) -> Iterator[Line]:
    # streaming: local files are not copied into the cache of `datasets`
    import datasets

    datasets.disable_progress_bars()
    number = 0
    try:
        for number, values in enumerate(datasets.load_dataset(**arguments), 1):
            yield Line(where, number, dict(values))
    except Exception as error:  # a hub, a file format or a network: `datasets` raises dozens of kinds
        raise InputError(
            f"cannot be read after row {number} ({first_line(error)}).", where=where, fix=fix
        ) from error

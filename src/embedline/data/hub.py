"""Readers of hub datasets, folders in the hub's layout and Parquet files, all through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from embedline.data.lines import Line
from embedline.errors import InputError, first_line

PREFIX = "hub:"


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


def read_hub(path: str, split: str, root: Path) -> Iterator[Line]:
    """Read the rows of a hub dataset, from a copy at `root/ORG/NAME` where there is one.

    Raises:
        InputError: the dataset, its configuration or the split cannot be loaded.
    """
    name, configuration, revision = hub_name(path)
    if (root / name).is_dir():
        return read_folder(root / name, split, configuration)
    fix = f"Check the name, the split and the network, or put a copy at {root / name}."
    return _rows(f"{path}[{split}]", fix, path=name, name=configuration, revision=revision, split=split)


def read_folder(folder: Path, split: str, configuration: str | None = None) -> Iterator[Line]:
    """Read the rows of a folder laid out like a hub dataset (data files, maybe a README.md with `configs`).

    Raises:
        InputError: the folder, its configuration or the split cannot be loaded.
    """
    fix = "Check the split, the README.md's configs and the files."
    return _rows(f"{folder}[{split}]", fix, path=str(folder), name=configuration, split=split, streaming=True)


def splits_of(folder: Path) -> dict[str, list[str]]:
    """Return the configurations named in the README.md of a folder in hub layout, and the splits of each.

    Raises:
        InputError: they name files that are not there.
    """
    readme = folder / "README.md"
    if not readme.is_file() or "config_name:" not in readme.read_text(encoding="utf-8", errors="replace"):
        return {}
    import datasets

    try:
        names = datasets.get_dataset_config_names(str(folder))
        return {name: datasets.get_dataset_split_names(str(folder), name) for name in names}
    except Exception as error:  # `datasets` raises dozens of kinds
        fix = "Check its configs and the files that they name."
        raise InputError(f"cannot be used ({first_line(error)}).", where=str(readme), fix=fix) from error


def read_parquet(path: Path) -> Iterator[Line]:
    """Read the rows of one Parquet file.

    Raises:
        InputError: it cannot be read.
    """
    fix = "Check the file, or fetch it again."
    return _rows(str(path), fix, path="parquet", data_files=str(path), split="train", streaming=True)


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

"""Files in folders with any name: their own rows, and none of a neighbour that a pattern would match."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedline.data.folders import folder_files
from embedline.data.hub import splits_of
from embedline.data.sources import read_source

NAMES = ["w?x", "a*", "a[b]c", "[ab]", "{a,b}", "[!a]", "s3::x", "zip:", "a%20b", "~", "it's", 'a"b', "a#b"]
CARD = (
    "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'data/*.parquet'}\n---\n"
)


def write(path: Path, query: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"query": [query], "pos": ["text"]}), path)


def queries(path: str, root: Path) -> list[object]:
    return [line.values["query"] if line.values else line.reason for line in read_source(path, root)]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_and_no_neighbour(tmp_path: Path, name: str) -> None:
    for neighbour in ("wyx", "ab", "abc", "a", "b", "a b", "x"):
        write(tmp_path / neighbour / "rows.parquet", "neighbour")
        write(tmp_path / name / f"{neighbour}.parquet", "neighbour")
    write(tmp_path / name / "rows.parquet", "own")
    write(tmp_path / name / f"{name}.parquet", "own, too")
    assert queries("rows.parquet", tmp_path / name) == ["own"]
    assert queries(f"{name}.parquet", tmp_path / name) == ["own, too"]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_a_card_is_read_and_no_neighbour(tmp_path: Path, name: str) -> None:
    for folder in ("wyx", "ab", "abc", "a", "b", name):
        write(tmp_path / folder / "data" / "rows.parquet", "own" if folder == name else "neighbour")
        (tmp_path / folder / "README.md").write_text(CARD)
    assert queries(f"./{name}", tmp_path) == ["own"]
    found = folder_files(tmp_path / name, "train", texts=False)
    assert found.read == [tmp_path / name / "data" / "rows.parquet"]
    assert splits_of(tmp_path / name) == {"default": ["train"]}

"""Lists in the cells of a table are read as the lists that they were; what may be a text is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedline.artifacts.jsonl import read_jsonl
from embedline.config.data import Source
from embedline.data.ingest import ingest
from embedline.data.printed_lists import AmbiguousListError, is_printed_list, read_printed_list
from embedline.data.tables import read_rows

TEXTS = ['it\'s "quoted", [so]', "строка\nи ещё", "c" * 80]


@pytest.mark.parametrize(
    "printed",
    [
        str(TEXTS),
        json.dumps(TEXTS),
        json.dumps(TEXTS, ensure_ascii=False, indent=1),
        str(np.array(TEXTS, dtype=object)),
        repr(np.array(TEXTS, dtype=object)),
        f" {TEXTS} ",
    ],
)
def test_a_list_is_read_as_its_printer_had_it(printed: str) -> None:
    assert is_printed_list(printed)
    assert read_printed_list(printed) == TEXTS


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("['a', 'b'", "is none"),
        ("['it's', 'b']", "is none"),
        ("['a', None]", "is none"),
        ("['a' 'b', 'c']", "a comma is missing"),
        ('["Save"] is the button', "is none"),
        (str(np.array([str(i) for i in range(2000)])), "shortened"),
    ],
)
def test_what_begins_as_a_list_and_is_none_is_refused(printed: str, reason: str) -> None:
    assert is_printed_list(printed)
    with pytest.raises(AmbiguousListError, match=reason):
        read_printed_list(printed)


def test_a_text_in_brackets_is_a_text() -> None:
    for text in ("[see section 3]", "[1]", "[ ] to do", "a ['b']", "", "see ['a', 'b']"):
        assert not is_printed_list(text)


def rows_of(folder: Path, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    ingest([Source(path=name)], [], folder, folder / "out")  # type: ignore[call-arg]
    return list(read_rows(folder / "out" / "records.parquet")), read_jsonl(
        folder / "out" / "quarantine.jsonl"
    )


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_lists_that_a_data_frame_wrote_come_back(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame(
        {
            "query": ["one", "two", "three", "four", "five"],
            "pos": [["a", "b's"], np.array(["c", "d"], dtype=object), '["e"]', "plain", "[]"],
            "neg": [[], ["x"], "[]", "", "['y']"],
            "pos_scores": [[0.5, 2], np.array([0.25, -1e-3]), "[1]", "0.75", ""],
        }
    )
    if suffix == "csv":
        frame.to_csv(tmp_path / "a.csv", index=False)
    else:
        lines = ["\t".join(map(str, row)) for row in [frame.columns, *frame.itertuples(index=False)]]
        (tmp_path / "a.tsv").write_text("\n".join(lines))
    records, quarantined = rows_of(tmp_path, f"a.{suffix}")
    assert [row["positives"] for row in records] == [["a", "b's"], ["c", "d"], ["e"], ["plain"]]
    assert [row["negatives"] for row in records] == [[], ["x"], [], []]
    assert [row["positive_scores"] for row in records] == [[0.5, 2], [0.25, -1e-3], [1], [0.75]]
    assert [(entry["line"], entry["reason"]) for entry in quarantined] == [(6, "no positive in 'pos'")]


def test_an_ambiguous_cell_is_refused_with_its_row_and_what_to_write(tmp_path: Path) -> None:
    frame = pd.DataFrame({"query": ["one", "two", "three"], "pos": ["a", "b", '["Save"] is the button']})
    frame.to_csv(tmp_path / "a.csv", index=False)
    records, (entry,) = rows_of(tmp_path, "a.csv")
    assert len(records) == 2
    assert (entry["line"], entry["file"]) == (4, str(tmp_path / "a.csv"))
    assert "'pos' begins as a printed list and is none; write it as JSON" in entry["reason"]


def test_a_format_with_lists_takes_no_printed_ones(tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": pos} for pos in ("a", "b", "['c', 'd']", ["['e']"])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records, (entry,) = rows_of(tmp_path, "a.jsonl")
    assert [row["positives"] for row in records] == [["a"], ["b"], ["['e']"]]
    assert "holds a printed list; write a list" in entry["reason"]

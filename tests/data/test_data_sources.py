"""Every kind of source is one stream of rows, and a bad row costs itself only."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.data.delimited import read_csv
from embedline.data.hub import hub_name
from embedline.data.sources import count_rows, read_source, source_files, source_name
from embedline.data.texts import PASSAGE_CHARS
from embedline.errors import InputError

ROWS = [{"query": "вопрос", "pos": ["ответ"]}, {"query": "second", "pos": ["another answer"]}]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def values(path: str, root: Path, **more: object) -> list[dict[str, object] | None]:
    return [line.values for line in read_source(path, root, **more)]  # type: ignore[arg-type]


def test_json_lines_are_read_plain_and_gzip_with_their_line_numbers(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n" + plain.read_bytes()))
    assert values("a.jsonl", tmp_path) == ROWS
    assert [(line.line, line.values) for line in read_source("b.jsonl.gz", tmp_path)] == [
        (2, ROWS[0]),
        (3, ROWS[1]),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"query": ', "invalid JSON"),
        (b'{"query": "\xff\xfe"}', "invalid UTF-8 at byte 12"),
        (b'{"query": "\\ud800"}', "lone surrogate"),
        (b"[1, 2]", "not a JSON object but list"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_a_malformed_line_does_not_affect_others(tmp_path: Path, line: bytes, reason: str) -> None:
    good = json.dumps(ROWS[0]).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\n" + line + b"\n" + good)
    first, bad, last = read_source("a.jsonl", tmp_path)
    assert first.values == last.values == ROWS[0]
    assert bad.values is None
    assert bad.line == 2
    assert reason in bad.reason
    bad.excerpt.encode("utf-8")


def test_a_file_that_is_not_gzip_and_one_cut_short_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"plain text")
    packed = gzip.compress(b"".join(json.dumps({"query": str(i)}).encode() + b"\n" for i in range(5000)))
    (tmp_path / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        with pytest.raises(InputError, match=name):
            values(name, tmp_path)


def test_csv_takes_a_text_of_any_length(tmp_path: Path) -> None:
    long = "слово " * 60_000
    (tmp_path / "a.csv").write_text(f"query,pos\nq,{long}\n", encoding="utf-8")
    assert [line.values for line in read_csv(tmp_path / "a.csv")] == [{"query": "q", "pos": long}]


def test_csv_with_an_unclosed_quote_is_refused_and_not_cut_short(tmp_path: Path) -> None:
    """The rest of the file would be one field of one malformed row, and nobody would miss the rows."""
    rows = "".join(f"question {i},answer {i}\n" for i in range(20))
    (tmp_path / "a.csv").write_text(f'query,pos\n{rows}"open,answer\n{rows}', encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.csv:22: a quote is never closed"):
        list(read_csv(tmp_path / "a.csv"))


def test_csv_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,pos,pos\nq,one,two\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.csv:1: names the column 'pos' twice"):
        list(read_csv(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text(",query,pos,\n1,q,p,\n", encoding="utf-8")  # as spreadsheets write
    assert [line.values and line.values["pos"] for line in read_csv(tmp_path / "a.csv")] == ["p"]


def test_csv_keeps_every_value_as_the_text_it_is(tmp_path: Path) -> None:
    text = 'query,pos\nnull,007\n"a, ""b""","two\nlines"\nshort\n'
    (tmp_path / "a.csv").write_bytes(text.encode() + b"\xff,x\nlast,row\n")
    lines = list(read_csv(tmp_path / "a.csv"))
    assert [line.values for line in lines] == [
        {"query": "null", "pos": "007"},
        {"query": 'a, "b"', "pos": "two\nlines"},
        None,
        None,
        {"query": "last", "pos": "row"},
    ]
    assert [(line.line, line.reason) for line in lines if line.values is None] == [
        (5, "1 fields where the header has 2"),
        (6, "invalid UTF-8"),
    ]


def test_parquet_and_a_folder_in_hub_layout_come_through_datasets(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "name"
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "data" / "some-part.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), folder / "data" / "held.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: data/some-part.parquet\n"
        "  - split: held\n    path: data/held.parquet\n---\n"
    )
    assert values("org/name/data/some-part.parquet", tmp_path) == ROWS
    assert values("org/name", tmp_path) == ROWS
    assert values("hub:org/name", tmp_path, split="held") == ROWS[:1]
    assert len(source_files("hub:org/name@abc", tmp_path)) == 3
    with pytest.raises(InputError, match="no_such_split"):
        values("hub:org/name", tmp_path, split="no_such_split")


def test_a_hub_dataset_that_cannot_be_reached_says_where_to_put_a_copy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hub:nobody/nothing.*put a copy at"):
        values("hub:nobody/nothing", tmp_path)


@pytest.mark.parametrize("path", ["hub:name", "hub:/name", "hub:a/b/c/d", "hub:"])
def test_a_hub_name_has_an_organisation_and_a_name(path: str) -> None:
    with pytest.raises(InputError, match="not a hub dataset"):
        hub_name(path)
    assert hub_name("hub:org/name/conf@1f") == ("org/name", "conf", "1f")


def test_texts_become_passages_of_whole_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    body = "\n\n".join(f"Абзац {i}. " + "слово " * 80 for i in range(8))
    (tmp_path / "sub" / "b.txt").write_text(body + "\n\n" + "Предложение. " * 400, encoding="utf-8")
    (tmp_path / "a.md").write_text("# Заголовок\n\nПервый.\n\n## Ещё\n\nВторой.\n", encoding="utf-8")
    (tmp_path / "c.txt").write_bytes(b"fine\n\xff\n")
    lines = list(read_source(str(tmp_path), tmp_path, texts=True))
    found = [line.values for line in lines if line.values]
    assert found[0] == {"title": "Заголовок", "text": "# Заголовок\n\nПервый."}
    assert found[1] == {"title": "Заголовок", "text": "## Ещё\n\nВторой."}
    assert all(len(row["text"]) <= PASSAGE_CHARS for row in found)
    words = " ".join(row["text"] for row in found if row["title"] == "b").split()
    assert words == (body + " " + "Предложение. " * 400).split()
    bad = next(line for line in lines if line.values is None)
    assert (Path(bad.file).name, bad.line, bad.reason) == ("c.txt", 2, "invalid UTF-8")


def test_a_source_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train" / "titles.jsonl", ROWS)
    with pytest.raises(InputError, match=r"Did you mean 'titles.jsonl'"):
        values("train/titels.jsonl", tmp_path)
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(InputError, match="kind that is not read"):
        values("x.xlsx", tmp_path)
    (tmp_path / "texts").mkdir()
    with pytest.raises(InputError, match="neither data files nor texts"):
        values("texts", tmp_path)
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="no queries"):
        values("texts", tmp_path)


def test_a_source_name_is_its_own_or_its_stem() -> None:
    assert source_name("mine", "x.jsonl") == "mine"
    assert source_name("", "train/faq.ru.jsonl.gz") == "faq.ru"
    assert source_name("", "hub:org/name@abc") == "name"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)] * 2),
        min_size=1,
        max_size=8,
    )
)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("query", "pos"), *rows])
    assert [tuple(line.values.values()) for line in read_csv(path) if line.values] == rows


def test_rows_are_counted_up_to_a_limit_and_cheaply(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes() + b"\n"))
    pq.write_table(pa.Table.from_pylist(ROWS * 3), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("query,pos\n" + "q,p\n" * 6)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.csv"):
        assert count_rows(name, tmp_path) == 6
        assert count_rows(name, tmp_path, at_most=4, cheaply=True) == 4
        assert count_rows(name, tmp_path, cheaply=True) == (None if name == "a.csv" else 6)
    assert count_rows("texts", tmp_path, texts=True) == 1
    assert count_rows("texts", tmp_path, texts=True, at_most=4, cheaply=True) is None
    assert count_rows("hub:org/name", tmp_path) is None

"""TSV has no quoting; in CSV a row that spans several lines is counted and reported."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from embedline.config.data import CorpusSource, Source
from embedline.data.delimited import read_csv, read_tsv
from embedline.data.ingest import ingest
from embedline.data.sources import count_rows, read_source
from embedline.data.tally import Tally
from embedline.errors import InputError

# an unpaired quote begins the second row and another one ends the fourth
TSV = 'query\tpos\nfirst\tone\n"second\ttwo\nthird\tthree\nfourth"\tfour\nfifth\t5" screen\n'


def test_tsv_has_as_many_rows_as_lines_whatever_its_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(TSV)
    found = [tuple((line.values or {}).values()) for line in read_tsv(tmp_path / "a.tsv")]
    assert found == [tuple(line.split("\t")) for line in TSV.splitlines()[1:]]
    report = ingest([Source(path="a.tsv")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    assert (report.total("read"), report.total("accepted")) == (5, 5)
    assert count_rows("a.tsv", tmp_path) == 5
    assert count_rows("a.tsv", tmp_path, at_most=3) == 3


def test_tsv_with_an_unclosed_quote_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b'query\tpos\r\n"open\tx\r\n\r\nlast\t\r\n')
    rows = [(line.line, line.values) for line in read_tsv(tmp_path / "a.tsv")]
    assert rows == [(2, {"query": '"open', "pos": "x"}), (4, {"query": "last", "pos": ""})]


def test_tsv_reports_values_that_were_quoted_by_its_writer(tmp_path: Path) -> None:
    with (tmp_path / "a.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("query", "pos"), ('a "b"', "c"), ("d", "e")])
    tally = Tally()
    rows = list(read_source("a.tsv", tmp_path, tally=tally))
    assert rows[0].values == {"query": '"a ""b"""', "pos": "c"}
    assert tally.notes() == ["1 rows have a value in quotes, which belong to the text: TSV has no quoting"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no header"), ("\t\na\tb\n", "no header"), ("a\ta\n", "'a' twice")],
)
def test_tsv_needs_a_header_of_different_names(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_tsv(tmp_path / "a.tsv"))


def test_csv_rows_that_span_lines_are_counted_against_the_lines_and_reported(tmp_path: Path) -> None:
    text = 'query,pos\nfirst,one\n"second,two\nthird,three\nfourth",four\nfifth,"two\nlines"\nsixth,six\n'
    (tmp_path / "a.csv").write_text(text)
    found = list(read_csv(tmp_path / "a.csv"))
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [list((line.values or {}).values()) for line in found] == rows
    assert [(line.line, line.lines) for line in found] == [(2, 1), (3, 3), (6, 2), (8, 1)]
    assert sum(line.lines for line in found) == len(text.splitlines()) - 1
    report = ingest([Source(path="a.csv")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    note = "4 rows from 7 lines: 2 rows span several lines"
    assert note in report.markdown()
    assert "a.csv:3–5" in report.markdown()
    (counts,) = report.as_json()
    assert (counts["tally"]["lines"], counts["tally"]["joined"]) == (7, 2)


def test_a_malformed_csv_row_names_the_lines_that_a_quote_joined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('query,pos\na,b\n"c,d\ne,f\ng"\nh,i\n')
    good, bad, last = read_csv(tmp_path / "a.csv")
    assert [line.values for line in (good, last)] == [{"query": "a", "pos": "b"}, {"query": "h", "pos": "i"}]
    assert (bad.line, bad.lines) == (3, 3)
    assert bad.reason == "1 fields where the header has 2; a quote joins the lines 3 to 5"


def test_a_source_without_joined_rows_has_no_note(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"one, two"\nthree\n')
    report = ingest([], [CorpusSource(path="a.csv")], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    assert report.sources[0].tally.notes() == []
    assert len(report.markdown().splitlines()) == 3


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_with_excels_separator_line_is_read_with_it(
    tmp_path: Path, separator: str, quote: str, end: str
) -> None:
    rows = [["query", "pos"], ["a, b; c", "two\nlines"], ["x|y", "t\tu"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        file.write(f"{quote}sep={separator}{quote}{end}")
        csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    found = list(read_csv(tmp_path / "a.csv"))
    assert [list((line.values or {}).values()) for line in found] == rows[1:]
    assert [list(line.values or {}) for line in found] == [rows[0]] * 2
    assert [(line.line, line.lines) for line in found] == [(3, 2), (5, 1)]
    assert count_rows("a.csv", tmp_path) == 2


def test_tsv_with_a_separator_line_is_read_for_the_tab_and_refused_for_another(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sep=\t\nquery\tpos\na\tb\n")
    assert [(line.line, line.values) for line in read_tsv(path)] == [(3, {"query": "a", "pos": "b"})]
    assert count_rows("a.tsv", tmp_path) == 1
    path.write_text("sep=;\nquery;pos\na;b\n")
    with pytest.raises(InputError, match=r"a\.tsv:1: names ';' as its separator\. Rename the file to \.csv"):
        list(read_tsv(path))


def test_a_separator_line_is_refused_where_datasets_reads_the_csv(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: a.csv\n---\n")
    (tmp_path / "a.csv").write_text("sep=;\nquery;pos\na;b\n")
    with pytest.raises(InputError, match=r"a\.csv:1: names a separator, which is no header"):
        list(read_source(str(tmp_path), tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "query;pos\na;b\n", "has one column, 'query;pos': a semicolon seems to separate several"),
        ("a.csv", "query\tpos\na\tb\n", "a tab seems to separate several"),
        ("a.tsv", "query,pos\na,b\n", "a comma seems to separate several. Rename the file to .csv."),
        ("a.csv", '"query", "pos"\n"a", "b"\n', "names the column '\"pos\"', with its quotes"),
        ("a.tsv", '"query"\t"pos"\na\tb\n', "names the column '\"query\"', with its quotes"),
        ("a.csv", "query,pos, query\na,b,c\n", "names the column 'query' twice"),
        ("a.csv", "query\x04,pos\na,b\n", "has control characters in the header"),
        ("a.tsv", "query\tpos\ra\tb\r", "ends its lines with carriage returns alone"),
        ("a.jsonl", '{"query": "a"}\r{"query": "b"}\r', "ends its lines with carriage returns alone"),
    ],
)
def test_a_table_whose_columns_cannot_be_told_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_bytes(text.encode())
    with pytest.raises(InputError) as refused:
        list(read_source(name, tmp_path))
    assert f"{tmp_path / name}:1: " in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize("header", ["query , pos", "\n\nquery,pos", "\ufeff\ufeffquery,pos", '"query","pos"'])
def test_blanks_marks_and_quotes_around_a_csv_header_are_no_part_of_it(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\na, b\n", encoding="utf-8")
    assert [line.values for line in read_csv(tmp_path / "a.csv")] == [{"query": "a", "pos": " b"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_row_with_a_zero_byte_is_malformed(tmp_path: Path, name: str) -> None:
    zeros = "\0" * 300
    (tmp_path / name).write_text(f"text\ngood\n{zeros}\nlast\n")
    found = list(read_source(name, tmp_path))
    assert [(line.values or {}).get("text") for line in found] == ["good", None, "last"]
    assert found[1].reason == "a zero byte, as in a damaged file"

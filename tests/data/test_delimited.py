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

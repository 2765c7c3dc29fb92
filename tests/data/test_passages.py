"""One reader of passages: `search`, `embed` and an evaluation accept the same rows and see the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedline.data.passages import Passage, read_passages, text_rows
from embedline.data.retrieval_files import load_retrieval
from embedline.errors import InputError

ROWS = [
    {"_id": 0, "id": "not this", "title": "Title alone"},
    {"_id": "b", "title": "Title", "text": "text"},
    {"_id": None, "id": 7, "text": "text alone", "title": None},
    {"_id": "blank", "title": "", "text": ""},
]
TITLED = {"0": "Title alone", "b": "Title text", "7": "text alone", "blank": ""}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_search_and_evaluation_read_the_same_passages(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", ROWS)
    write(tmp_path / "queries.jsonl", [{"_id": 0, "text": "a query"}])
    (tmp_path / "qrels.tsv").write_text("0\t0\t1\n")
    found = read_passages(corpus)
    assert {passage.id: passage.titled for passage in found} == TITLED
    evaluated = load_retrieval(tmp_path, "test")
    assert evaluated.corpus == {passage.id: (passage.title, passage.text) for passage in found}
    assert evaluated.queries == {"0": "a query"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": "a"}, "neither a text nor a title. Its columns are body"),
        ({"text": 5}, "'text' is int, not text"),
        ({"_id": True, "text": "a"}, "the id is True"),
        ({"_id": 1.5, "text": "a"}, "the id is 1.5"),
    ],
)
def test_a_row_that_is_no_passage_is_named(tmp_path: Path, row: dict[str, object], message: str) -> None:
    corpus = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError, match=message) as refused:
        read_passages(corpus)
    assert f"{corpus}:1" in str(refused.value)


def test_passages_without_ids_are_numbered_and_a_mixture_is_refused(tmp_path: Path) -> None:
    corpus = write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b", "id": ""}])
    assert [passage.id for passage in read_passages(corpus)] == ["1", "2"]
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "b.jsonl", [{"text": "a"}])
    write(tmp_path / "folder" / "c.jsonl", [{"text": "a"}])
    assert [passage.id for passage in read_passages(tmp_path / "folder")] == ["b.jsonl:1", "c.jsonl:1"]
    write(corpus, [{"text": "a"}, {"text": "b", "id": "1"}])
    with pytest.raises(InputError, match=r"a\.jsonl:2: has an id or has none"):
        read_passages(corpus)


def test_tsv_and_text_files_have_one_passage_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\ttext\n1\t"open\n2\tmiddle\n3\tclose"\n')
    assert [p.text for p in read_passages(tmp_path / "a.tsv")] == ['"open', "middle", 'close"']
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    assert read_passages(tmp_path / "a.txt") == [Passage("1", "", "one"), Passage("3", "", "two")]


def test_no_text_has_no_lines() -> None:
    assert text_rows("") == []
    assert text_rows("\n") == [""]
    assert text_rows("a\n\nb\r\n") == ["a", "", "b"]


def test_two_files_of_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "t"}])
    (tmp_path / "corpus.parquet").touch()
    with pytest.raises(InputError, match=r"holds corpus\.jsonl and corpus\.parquet"):
        load_retrieval(tmp_path, "test")

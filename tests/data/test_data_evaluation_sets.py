"""Held-out sets are laid out as they are, or refused with the file and the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from embedline.config.data import EvaluationSet
from embedline.data.evaluation_sets import lay_out, read_pairs, read_retrieval, read_sets
from embedline.errors import InputError

CORPUS = [{"_id": "d1", "title": "T", "text": "первый"}, {"_id": "d2", "text": "второй"}]
QUERIES = [{"_id": "q1", "text": "один"}, {"_id": "q2", "text": "два"}, {"_id": "q3", "text": "три"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t0\n"


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.fixture
def retrieval(tmp_path: Path) -> Path:
    folder = tmp_path / "eval" / "Docs"
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(jsonl(CORPUS)))
    (folder / "queries.jsonl").write_bytes(jsonl(QUERIES))
    (folder / "qrels.tsv").write_text(QRELS)
    return folder


def lay(root: Path, path: str, **more: Any) -> Path:
    lay_out([EvaluationSet(path=path, **more)], root, root / "out")
    return root / "out"


def test_a_retrieval_set_keeps_the_queries_that_have_an_answer(retrieval: Path, tmp_path: Path) -> None:
    out = lay(tmp_path, "eval/Docs")
    (info,) = read_sets(out)
    assert (info.name, info.kind, info.task_type, info.count) == ("Docs", "retrieval", "short-long", 1)
    found = read_retrieval(out / "Docs")
    assert found.corpus == {"d1": ("T", "первый"), "d2": ("", "второй")}
    assert found.queries == {"q1": "один"}
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}}


@pytest.mark.parametrize(
    ("kind", "rows", "expected"),
    [
        ("sts", [{"score": 2.5}, {"score": -1}], [2.5, -1.0]),
        ("pairs", [{"label": 1}, {"label": None}, {"label": 0}], [1.0, 0.0]),
        ("bitext", [{}, {}], [None, None]),
    ],
)
def test_sentence_pairs_keep_their_order_and_lose_those_without_an_answer(
    tmp_path: Path, kind: str, rows: list[dict[str, Any]], expected: list[float | None]
) -> None:
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "dev.jsonl").write_bytes(
        jsonl([{"sentence1": f"a{i}", "sentence2": f"b{i}", **row} for i, row in enumerate(rows)])
    )
    out = lay(tmp_path, "Set", kind=kind, split="dev", name="Mine")
    assert [score for _, _, score in read_pairs(out / "Mine")] == expected
    assert read_sets(out)[0].count == len(expected)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("qrels.tsv", b"q1\td9\t1\n", r"qrels.tsv:1: names a document 'd9'"),
        ("qrels.tsv", b"query-id\tcorpus-id\tscore\nq9\td1\t1\n", r"qrels.tsv:2: names a query 'q9'"),
        ("qrels.tsv", b"q1 d1 1\n", r"qrels.tsv:1: cannot be read"),
        ("qrels.tsv", b"q1\td1\t0\n", "no query has a relevant document"),
        ("qrels.tsv", None, r"qrels.tsv: is missing"),
        ("queries.jsonl", None, r"queries.jsonl: is missing"),
        ("queries.jsonl", b"", r"queries.jsonl: is empty"),
        ("queries.jsonl", b'{"text": "a"}', r"queries.jsonl:1: has no _id"),
        ("queries.jsonl", b'{"_id": "q1", "text": 3}', r"queries.jsonl:1: has no 'text'"),
        ("queries.jsonl", b'{"_id": "q1"', r"queries.jsonl:1: invalid JSON"),
        ("queries.jsonl", jsonl([QUERIES[0], QUERIES[0]]), r"queries.jsonl:2: repeats the id 'q1'"),
    ],
)
def test_a_set_with_a_fault_is_refused(
    retrieval: Path, tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (retrieval / file).unlink()
    else:
        (retrieval / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        lay(tmp_path, "eval/Docs")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "neither a score nor a label"),
        ({"label": 2}, "a pair is 0 or 1"),
        ({"score": "1"}, "not a number"),
    ],
)
def test_a_pair_without_a_usable_answer_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "test.jsonl").write_bytes(jsonl([{"sentence1": "a", "sentence2": "b", **row}]))
    with pytest.raises(InputError, match=message):
        lay(tmp_path, "Set", kind="pairs")


def test_a_run_may_have_no_held_out_set(tmp_path: Path) -> None:
    assert lay_out([], tmp_path, tmp_path / "out") == []
    assert read_sets(tmp_path / "out") == []

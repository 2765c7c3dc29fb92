"""Held-out sets are laid out as they are, or refused with the file and the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from embedline.config.data import EvaluationSet
from embedline.data.decontaminate import Protected, Tidied
from embedline.data.evaluation_index import EvaluationText, Found
from embedline.data.evaluation_reader import read_labelled, read_pairs, read_retrieval, read_sets
from embedline.data.evaluation_sets import lay_out
from embedline.data.retrieval_files import load_retrieval
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


def test_a_set_that_was_laid_out_is_read_as_it_is(retrieval: Path, tmp_path: Path) -> None:
    """The printed command searches it, so `evaluate` reads it too."""
    lay(tmp_path, "eval/Docs")
    laid = load_retrieval(tmp_path / "out" / "Docs", "test")
    assert laid.queries == {"q1": "один"}
    assert laid.qrels == {"q1": {"d1": 2, "d2": 0}}


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
        ("qrels.tsv", b"q1\td1\t0.5\n", r"qrels.tsv:1: cannot be read"),
        ("qrels.tsv", b"q1\td1\tnan\n", r"qrels.tsv:1: cannot be read"),
        (
            "qrels.tsv",
            b"q1\td1\t1\nq1\td2\t1\nq1\td1\t2\n",
            r"qrels.tsv:3: .* grade 2 .*qrels.tsv:1 gives it 1",
        ),
        ("qrels.tsv", b"q1\td9\t0\nq1\td1\t1\nq1\td9\t1\n", r"qrels.tsv:3: names a document 'd9'"),
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


def test_a_set_in_beirs_layout_is_taken_as_it_is(tmp_path: Path) -> None:
    """qrels/<split>.tsv with a header; queries of other splits beside; a document that is all title."""
    place = tmp_path / "scifact"
    (place / "qrels").mkdir(parents=True)
    (place / "corpus.jsonl").write_bytes(jsonl([{**CORPUS[0], "metadata": {}}, {**CORPUS[1], "text": ""}]))
    (place / "queries.jsonl").write_bytes(jsonl([{**query, "metadata": {}} for query in QUERIES]))
    (place / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td2\t1\n")
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (place / "README.md").write_text("# SciFact\n\nOne of BEIR's sets.\n")
    found = read_retrieval(lay(tmp_path, "scifact") / "scifact")
    assert (found.queries, found.qrels) == ({"q1": "один"}, {"q1": {"d1": 1}})
    assert found.corpus["d2"] == ("", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels.tsv", "q1\tQ0\td1\t1\nq2\tQ0\td2\t0\n"),  # MIRACL, TREC
        ("qrels/test.tsv", "q1 0 d1 1\nq2 0 d2 0\n"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1.0\nq2\td2\t0.0\n"),  # a data frame wrote it
        ("qrels.jsonl", '{"query-id": "q1", "corpus-id": "d1", "score": 1.0}\n'),
        ("qrels/test.jsonl", '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n'),
    ],
)
def test_judgements_may_stand_in_other_forms(
    retrieval: Path, tmp_path: Path, name: str, content: str
) -> None:
    (retrieval / "qrels.tsv").unlink()
    (retrieval / name).parent.mkdir(exist_ok=True)
    (retrieval / name).write_text(content)
    found = read_retrieval(lay(tmp_path, "eval/Docs") / "Docs")
    assert {query: grades for query, grades in found.qrels.items() if max(grades.values())} == {
        "q1": {"d1": 1}
    }


def test_an_absent_document_that_is_not_relevant_is_no_error(retrieval: Path, tmp_path: Path) -> None:
    (retrieval / "qrels.tsv").write_text("q1\td1\t1\nq1\tgone\t0\nq1\tjunk\t-2\nq1\td1\t1\n")
    out = lay(tmp_path, "eval/Docs")
    assert read_retrieval(out / "Docs").qrels == {"q1": {"d1": 1, "gone": 0, "junk": -2}}
    assert read_sets(out)[0].notes == []


def test_absent_relevant_documents_are_kept_and_counted_when_asked(retrieval: Path, tmp_path: Path) -> None:
    (retrieval / "qrels.tsv").write_text("q1\td1\t1\nq1\tgone\t1\nq2\tgone\t2\nq2\tlost\t1\nq3\td1\t0\n")
    out = lay(tmp_path, "eval/Docs", missing_documents="not_found")
    assert read_retrieval(out / "Docs").qrels == {"q1": {"d1": 1, "gone": 1}, "q2": {"gone": 2, "lost": 1}}
    assert read_sets(out)[0].notes == [
        "relevant documents that the corpus lacks, counted as not found: 2",
        "judged queries without a relevant document, not scored (they are 0 in mteb): 1",
    ]
    assert Protected.read(out).index  # of the documents that are there


@pytest.mark.parametrize(
    "rule",
    [{"ignore_identical_ids": True}, {"ignore_identical_ids": False}, {"missing_documents": "not_found"}],
)
def test_rules_of_retrieval_are_refused_for_other_kinds(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is for retrieval sets"):
        EvaluationSet(path="Set", kind="sts", **rule)
    assert EvaluationSet.model_validate(EvaluationSet(path="Set", kind="sts").model_dump())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query-id": "q1", "score": 1}', r"qrels.jsonl:1: has no query-id or no corpus-id"),
        ('{"query-id": "q1", "corpus-id": "d1", "score": 0.5}', r"qrels.jsonl:1: 'score' is 0.5"),
    ],
)
def test_a_judgement_without_a_grade_is_refused(
    retrieval: Path, tmp_path: Path, content: str, message: str
) -> None:
    (retrieval / "qrels.tsv").unlink()
    (retrieval / "qrels.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        lay(tmp_path, "eval/Docs")


@pytest.mark.parametrize("judged", ["default", "qrels"])
def test_a_hub_dataset_of_three_configurations_is_a_retrieval_set(tmp_path: Path, judged: str) -> None:
    place = tmp_path / "org" / "Docs"
    files = {
        ("corpus", "corpus"): CORPUS,
        ("queries", "queries"): QUERIES,
        (judged, "dev"): [{"query-id": "q3", "corpus-id": "d1", "score": 1}],
        (judged, "test"): [{"query-id": "q1", "corpus-id": "d2", "score": 1}],
    }
    configs: dict[str, str] = {}
    for (name, split), rows in files.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / f"{split}.jsonl").write_bytes(jsonl(rows))
        configs[name] = configs.get(name, f"- config_name: {name}\n  data_files:\n")
        configs[name] += f"  - split: {split}\n    path: {name}/{split}.jsonl\n"
    (place / "README.md").write_text(f"---\nconfigs:\n{''.join(configs.values())}---\n")
    found = read_retrieval(lay(tmp_path, "org/Docs") / "Docs")
    assert (found.queries, found.qrels) == ({"q1": "один"}, {"q1": {"d2": 1}})
    assert found.corpus == {"d1": ("T", "первый"), "d2": ("", "второй")}
    with pytest.raises(InputError, match=r"has no split 'validation'. Known: dev, test"):
        lay(tmp_path / "org", "Docs", split="validation")


@pytest.mark.parametrize(
    ("kind", "train", "test", "expected"),
    [
        ("classification", {"label": 3}, {"label": -1}, [["3"], ["-1"]]),
        ("classification", {"label": "qa"}, {"label": "iot"}, [["qa"], ["iot"]]),
        ("multilabel", {"labels": [0, 14]}, {"labels": []}, [["0", "14"], []]),
        ("multilabel", {"label": ["a"]}, {"label": ["b", "a"]}, [["a"], ["b", "a"]]),
    ],
)
def test_labelled_texts_are_laid_out_with_what_a_classifier_learns_from(
    tmp_path: Path, kind: str, train: dict[str, Any], test: dict[str, Any], expected: list[list[str]]
) -> None:
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "train.jsonl").write_bytes(jsonl([{"text": "учусь", **train}]))
    (tmp_path / "Set" / "dev.jsonl").write_bytes(jsonl([{"text": "проверка", **test}]))
    out = lay(tmp_path, "Set", kind=kind, split="dev")
    assert read_labelled(out / "Set", "train") == [("учусь", expected[0])]
    assert read_labelled(out / "Set", "test") == [("проверка", expected[1])]
    assert (read_sets(out)[0].task_type, read_sets(out)[0].count) == ("classification", 1)
    protected = Protected.read(out)
    found = protected.in_record(Tidied.of("проверка"), [])
    assert found.leak == ("evaluation_sentence", EvaluationText("sentence", "Set", "проверка"))
    assert protected.in_record(Tidied.of("учусь"), []) == Found()  # what it learns from is no secret


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("classification", {}, r"test.jsonl:1: has no label"),
        ("classification", {"label": None}, r"test.jsonl:1: has no label"),
        ("classification", {"label": 0.5}, r"test.jsonl:1: has no label"),
        ("multilabel", {"labels": 3}, r"test.jsonl:1: has no labels, a list"),
    ],
)
def test_a_text_without_a_usable_label_is_refused(
    tmp_path: Path, kind: str, row: dict[str, Any], message: str
) -> None:
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "train.jsonl").write_bytes(jsonl([{"text": "a", "label": 1, "labels": [1]}]))
    (tmp_path / "Set" / "test.jsonl").write_bytes(jsonl([{"text": "a", **row}]))
    with pytest.raises(InputError, match=message):
        lay(tmp_path, "Set", kind=kind)


def test_a_run_may_have_no_held_out_set(tmp_path: Path) -> None:
    assert lay_out([], tmp_path, tmp_path / "out") == []
    assert read_sets(tmp_path / "out") == []

"""Rows in = accepted + quarantined + left out, whatever the rows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.artifacts.jsonl import read_jsonl
from embedline.config.data import Columns, CorpusSource, Source
from embedline.data.ingest import ingest
from embedline.data.tables import read_rows
from embedline.errors import InputError

GOOD = {"query": "Как сохранить файл?", "pos": ["Нажмите «Сохранить»."]}


def write(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def quarantine(out: Path) -> list[dict[str, Any]]:
    return read_jsonl(out / "quarantine.jsonl")


def test_bge_rows_become_records(tmp_path: Path) -> None:
    english = {"query": "how to save?", "pos": "Press save.", "neg": ["Press load.", " "], "score": 4}
    english |= {"pos_scores": [0.5], "neg_scores": [-2, 7]}  # FlagEmbedding's, for knowledge_distillation
    rows = [{**GOOD, "lang": "ru", "task_type": "short-short"}, english]
    write(tmp_path / "faq.jsonl", rows)
    report = ingest([Source(path="faq.jsonl")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    first, second = read_rows(tmp_path / "out" / "records.parquet")
    assert first == {
        "id": first["id"],
        "query": GOOD["query"],
        "positives": GOOD["pos"],
        "negatives": [],
        "source": "faq",
        "task_type": "short-short",
        "language": "ru",
        "score": None,
        "positive_scores": None,
        "negative_scores": None,
    }
    assert (second["positives"], second["negatives"]) == (["Press save."], ["Press load."])
    assert (second["positive_scores"], second["negative_scores"]) == ([0.5], [-2.0])
    assert (second["language"], second["task_type"], second["score"]) == ("en", "short-short", 4.0)
    assert (report.total("read"), report.total("accepted")) == (2, 2)


def test_ids_depend_on_content_and_are_unique(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [GOOD, GOOD, {**GOOD, "query": "другой"}])
    write(tmp_path / "b.jsonl", [{**GOOD, "query": "другой"}, GOOD])
    ids = {}
    for name in "ab":
        source = Source(name="same", path=f"{name}.jsonl")  # type: ignore[call-arg]
        ingest([source], [], tmp_path, tmp_path / name)
        ids[name] = [row["id"] for row in read_rows(tmp_path / name / "records.parquet")]
    assert len(set(ids["a"])) == 3
    assert ids["a"][1] == f"{ids['a'][0]}-2"
    assert ids["b"] == [ids["a"][2], ids["a"][0]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"pos": ["a"]}, "no 'query'"),
        ({"query": " ", "pos": ["a"]}, "'query' is empty"),
        ({"query": 7, "pos": ["a"]}, "'query' is int, not text"),
        ({"query": "q"}, "no positive"),
        ({"query": "q", "pos": ["", " "]}, "no positive"),
        ({"query": "q", "pos": ["a", None]}, "'pos' holds NoneType"),
        ({"query": "q", "pos": {"text": "a"}}, "'pos' is dict"),
        ({"query": "q", "pos": ["a"], "neg": 3}, "'neg' is int"),
        ({"query": "q", "pos": ["a"], "score": "high"}, "'score' is 'high', not a number"),
        ({"query": "q", "pos": ["a"], "score": True}, "'score' is True"),
        ('{"query": "q", "pos": ["a"], "score": NaN}', "'score' is nan"),
        ({"query": "q", "pos": ["a"], "task_type": "short"}, "unknown task_type"),
        ({"query": "q", "pos": ["a"], "pos_scores": [1, 2]}, "'pos_scores' is not a list of as many numbers"),
        ({"query": "q", "pos": ["a"], "pos_scores": [None]}, "'pos_scores' lacks a number"),
        ({"query": "q", "pos": ["a"], "pos_scores": ["much"]}, "'pos_scores' is 'much', not a number"),
        ('{"query": "q"', "invalid JSON"),
    ],
)
def test_a_malformed_row_goes_to_quarantine_with_file_line_and_reason(
    tmp_path: Path, row: Any, reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, row])
    report = ingest([Source(path="a.jsonl")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["file"], entry["line"]) == (str(path), 2)
    assert reason in entry["reason"]
    assert entry["excerpt"]
    assert (report.total("accepted"), report.total("quarantined")) == (1, 1)


def test_a_mostly_malformed_source_is_refused_with_its_first_fault(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [GOOD, {"text": "a"}, {"text": "b"}])
    with pytest.raises(InputError, match=r"2 of 3 rows .* no 'query'; the columns are text .*a\.jsonl:2"):
        ingest([Source(path="a.jsonl")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_an_empty_source_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("" if name == "a.jsonl" else "query,pos\n")
    with pytest.raises(InputError, match=r"a\.(jsonl|csv).*is empty"):
        ingest([Source(path=name)], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]


def test_scored_pairs_have_their_own_columns_and_low_ones_are_left_out(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i} for i in range(6)]
    write(tmp_path / "sts.jsonl", rows)
    columns = Columns(query="sentence1", positive="sentence2")  # type: ignore[call-arg]
    source = Source(path="sts.jsonl", columns=columns, task_type="sts", language="en", min_score=3.5)  # type: ignore[call-arg]
    report = ingest([source], [], tmp_path, tmp_path / "out")
    rows = list(read_rows(tmp_path / "out" / "records.parquet"))
    assert [row["query"] for row in rows] == ["a 4", "a 5"]
    assert [row["score"] for row in rows] == [None, None]  # positives now, like any other
    assert (report.total("read"), report.total("left_out")) == (6, 4)


def test_csv_and_texts_and_limits(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q,p,score\nвопрос один,ответ один,0.5\nвопрос два,ответ два,\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "one.txt").write_text("Первый абзац.\n\nВторой абзац.")
    columns = Columns(query="q", positive="p")  # type: ignore[call-arg]
    report = ingest(
        [Source(path="a.csv", columns=columns), Source(name="first", path="a.csv", columns=columns, limit=1)],  # type: ignore[call-arg]
        [CorpusSource(path="docs")],  # type: ignore[call-arg]
        tmp_path,
        tmp_path / "out",
    )
    assert [s.accepted for s in report.sources] == [2, 1, 1]
    rows = list(read_rows(tmp_path / "out" / "records.parquet"))
    assert [row["score"] for row in rows] == [0.5, None, 0.5]
    (passage,) = read_rows(tmp_path / "out" / "corpus.parquet")
    assert passage["text"] == "Первый абзац.\n\nВторой абзац."
    assert (passage["title"], passage["source"], passage["language"]) == ("one", "docs", "ru")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("query", "pos", "neg", "score"), json_values)))
)
def test_no_row_is_lost_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*[GOOD] * (len(rows) + 1), *rows]))
    report = ingest([Source(path="a.jsonl", min_score=0.0)], [], folder, folder / "out")  # type: ignore[call-arg]
    (counts,) = report.sources
    assert counts.read == 2 * len(rows) + 1
    assert counts.quarantined == len(quarantine(folder / "out"))
    assert counts.accepted == len(list(read_rows(folder / "out" / "records.parquet")))
    assert counts.read == counts.accepted + counts.quarantined + counts.left_out

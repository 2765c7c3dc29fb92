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


FOREIGN = {
    # source's own columns, rows, read, not read
    "FlagEmbedding": (
        {},
        [
            {
                **GOOD,
                "neg": ["n"],
                "pos_scores": [1.0],
                "neg_scores": [0.1],
                "prompt": "Find",
                "type": "normal",
            },
            {**GOOD, "neg": [], "prompt": "Find", "id": 0, "pos_id": ["a"], "neg_id": []},
        ],
        {"query": 2, "pos": 2, "neg": 1, "pos_scores": 1, "neg_scores": 1},
        {"prompt": 2, "type": 1, "id": 1, "pos_id": 1},
    ),
    "sentence-transformers": (
        {"query": "anchor", "positive": "positive", "negative": "negative_1"},
        [{"anchor": "a b c", "positive": "b c d", "negative_1": "x", "negative_2": "y", "label": 1}],
        {"anchor": 1, "positive": 1, "negative_1": 1},
        {"negative_2": 1, "label": 1},
    ),
    "Tevatron": (
        {"positive": "answers"},
        [
            {
                "query_id": "7",
                "query": "q",
                "answers": ["a"],
                "negative_passages": [{"docid": "1", "text": "t"}],
            }
        ],
        {"query": 1, "answers": 1},
        {"query_id": 1, "negative_passages": 1},
    ),
}


@pytest.mark.parametrize("tool", FOREIGN)
def test_columns_read_and_not_read_are_counted_by_source(tmp_path: Path, tool: str) -> None:
    named, rows, read, ignored = FOREIGN[tool]
    write(tmp_path / "a.jsonl", [*rows, "not JSON"])
    source = Source(path="a.jsonl", columns=Columns(**named))  # type: ignore[call-arg]
    report = ingest([source], [], tmp_path, tmp_path / "out")
    (counts,) = report.sources
    assert (counts.columns, counts.ignored_columns) == (read, ignored)
    assert report.as_json()[0]["ignored_columns"] == ignored
    for name, count in {**read, **ignored}.items():
        assert f"{name} ({count})" in report.markdown()


def test_columns_of_a_beir_corpus_and_of_triples_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "T", "text": "a text", "metadata": {"url": "u"}}]
    )
    (tmp_path / "triples.tsv").write_text("query\tpositive\tnegative\tqid\nq one\tp one\tn one\t\n")
    columns = Columns(query="query", positive="positive", negative="negative")  # type: ignore[call-arg]
    report = ingest(
        [Source(path="triples.tsv", columns=columns)],  # type: ignore[call-arg]
        [CorpusSource(path="corpus.jsonl")],  # type: ignore[call-arg]
        tmp_path,
        tmp_path / "out",
    )
    triples, corpus = report.sources
    assert triples.columns == {"query": 1, "positive": 1, "negative": 1}
    assert triples.ignored_columns == {}  # qid is there and has no value
    assert (corpus.columns, corpus.ignored_columns) == ({"title": 1, "text": 1}, {"_id": 1, "metadata": 1})


def test_keys_that_are_values_do_not_fill_the_counts(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{**GOOD, f"key {i}": 1} for i in range(60)])
    (counts,) = ingest([Source(path="a.jsonl")], [], tmp_path, tmp_path / "out").sources  # type: ignore[call-arg]
    assert len(counts.ignored_columns) == 51
    assert counts.ignored_columns["others"] == 10


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

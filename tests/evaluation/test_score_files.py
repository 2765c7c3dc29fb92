"""Score rows on disk: the same JSON as before, and files of older versions."""

import json
import math

import pyarrow.parquet as pq

from embedline.artifacts.scores import ScoreRow, read_scores, score_row
from embedline.evaluation.score_files import PER_QUERY, QueryScore, read_per_query, write_scores

ROW = ScoreRow(
    model="candidate", digest="d", set="Вопросы", kind="retrieval", metric="ndcg@10", main=True, value=0.5
)


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [ROW, ROW.at("lexical", 0).scored("mrr@10", 0.25, interval=(0.1, 0.4), count=3)]
    write_scores(tmp_path, rows, [])
    assert read_scores(tmp_path) == rows
    assert "Вопросы" in (tmp_path / "scores.jsonl").read_text(encoding="utf-8")


def test_rows_of_older_files_get_defaults():
    old = {"model": "bm25", "set": "docs", "metric": "ndcg@10", "value": None, "runtime": None, "dim": None}
    row = score_row({**old, "no longer known": 1})
    assert (row.runtime, row.dim, row.head, row.main, row.low) == ("torch", 0, "dense", False, None)
    assert math.isnan(row.value)
    assert json.dumps(row.as_json())


def test_per_query_values_are_read_under_another_role(tmp_path):
    values = [QueryScore("candidate", "docs", dim, "torch", "dense", "q", 0.5) for dim in (64, 16)]
    write_scores(tmp_path, [ROW], values)
    assert pq.read_table(tmp_path / PER_QUERY).num_rows == 2
    shown = read_per_query(tmp_path, model="champion", shown={("docs", 64, "dense")})
    assert shown.to_pylist() == [values[0]._replace(model="champion")._asdict()]

"""Records held out before training: which, how many, and that they never come back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.config.data import HoldOut, Source
from embedline.data.evaluation_reader import read_queries, read_retrieval, read_sets
from embedline.data.evaluation_sets import lay_out, write_sets
from embedline.data.holdout import hold_out
from embedline.data.ingest import ingest
from embedline.data.tables import RECORD_SCHEMA, RECORDS, RowWriter, read_rows
from embedline.errors import InputError


def record(number: int, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(RECORD_SCHEMA.names)
    return row | {
        "id": str(number),
        "source": "pairs",
        "task_type": "short-long",
        "language": "en",
        "query": f"question {number}",
        "positives": [f"answer {number}"],
        "negatives": [],
        **more,
    }


def split(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> tuple[set[str], set[str]]:
    """Hold records out; return the queries of the set and those left to train on."""
    dataset, evaluation = folder / "dataset", folder / "evaluation"
    dataset.mkdir(parents=True)
    evaluation.mkdir()
    write_sets(evaluation, [])
    with RowWriter(dataset / RECORDS, RECORD_SCHEMA) as writer:
        for row in rows:
            writer.write(row)
    info, moved = hold_out(dataset, evaluation, HoldOut(**settings))
    left = [row["query"] for row in read_rows(dataset / RECORDS)]
    assert len(left) + moved == len(rows)
    assert [found.name for found in read_sets(evaluation)] == [info.name]
    return set(read_queries(evaluation / info.name).values()), set(left)


def test_a_share_of_all_sources_is_held_out_when_none_is_named(tmp_path: Path) -> None:
    rows = [record(n, source="faq" if n % 2 else "pairs") for n in range(300)]
    held, left = split(tmp_path, rows, share=0.2)
    assert not held & left
    assert 35 <= len(held) <= 85  # 60 expected
    assert {int(query.split()[1]) % 2 for query in held} == {0, 1}


def test_a_record_with_a_score_is_never_held_out(tmp_path: Path) -> None:
    rows = [record(n, score=0.1 if n < 100 else None) for n in range(200)]
    held, _ = split(tmp_path, rows, share=0.5)
    assert held
    assert all(int(query.split()[1]) >= 100 for query in held)


def test_at_most_bounds_the_set_and_a_trained_row_is_never_held_out_later(tmp_path: Path) -> None:
    rows = [record(n) for n in range(400)]
    held_early, trained_early = split(tmp_path / "early", rows[:200], share=0.3, at_most=20)
    held_late, _ = split(tmp_path / "late", rows, share=0.3, at_most=20)
    assert len(held_early) == len(held_late) == 20
    assert not held_late & trained_early


@given(share=st.floats(0.05, 0.6), cut=st.integers(50, 119))
def test_more_rows_never_hold_out_what_fewer_rows_trained_on(
    tmp_path_factory: pytest.TempPathFactory, share: float, cut: int
) -> None:
    rows = [record(n) for n in range(120)]
    try:
        _, trained = split(tmp_path_factory.mktemp("few"), rows[:cut], share=share)
        held, _ = split(tmp_path_factory.mktemp("many"), rows, share=share)
    except InputError:  # none of these few rows is below the share
        return
    assert not held & trained


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="would hold out 0 of 1 records"):
        split(tmp_path, [record(1)], share=0.01)


def test_all_positives_of_a_held_out_query_are_relevant(tmp_path: Path) -> None:
    """Its rows differ in their positive, by which they are held out; one may be trained on."""
    rows = [
        f'{{"query": "вопрос {number}", "pos": "{kind} ответ {number}"}}\n'
        for number in range(40)
        for kind in ("один", "другой")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    dataset, evaluation = tmp_path / "dataset", tmp_path / "evaluation"
    ingest([Source(path="pairs.jsonl")], [], tmp_path, dataset)  # type: ignore[call-arg]
    lay_out([], tmp_path, evaluation)
    info, _ = hold_out(dataset, evaluation, HoldOut(sources=["pairs"], share=0.3))  # type: ignore[call-arg]
    found = read_retrieval(evaluation / info.name)
    assert len(found.corpus) == 80
    for identity, text in found.queries.items():
        number = text.split()[-1]
        relevant = {found.corpus[document][1] for document in found.qrels[identity]}
        assert relevant == {f"один ответ {number}", f"другой ответ {number}"}


def test_a_held_out_query_that_is_a_document_has_its_id(tmp_path: Path) -> None:
    """Questions of one meaning form chains: the query of a row is the positive of another."""
    texts = [f"вопрос номер {number}" for number in range(40)]
    rows = [f'{{"query": "{one}", "pos": "{other}"}}\n' for one, other in pairwise(texts)]
    rows.append(f'{{"query": "{texts[0]}", "pos": "{texts[0]}"}}\n')  # answers itself: nothing to find
    (tmp_path / "pairs.jsonl").write_text("".join(rows), encoding="utf-8")
    dataset, evaluation = tmp_path / "dataset", tmp_path / "evaluation"
    ingest([Source(path="pairs.jsonl")], [], tmp_path, dataset)  # type: ignore[call-arg]
    lay_out([], tmp_path, evaluation)
    info, moved = hold_out(dataset, evaluation, HoldOut(sources=["pairs"], share=0.5))  # type: ignore[call-arg]
    found = read_retrieval(evaluation / info.name)
    assert info.ignore_identical_ids
    assert moved >= info.count > 5
    ids = {text: identity for identity, (_, text) in found.corpus.items()}
    for identity, text in found.queries.items():
        assert identity == ids.get(text, identity)
        assert set(found.qrels[identity]) == {ids[f"вопрос номер {int(text.split()[-1]) + 1}"]}

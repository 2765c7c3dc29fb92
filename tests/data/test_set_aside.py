"""Records that are set aside for the fit of a fusion."""

import pytest

from embedline.data.set_aside import SET_ASIDE, set_aside
from embedline.data.tables import RECORD_SCHEMA, RECORDS, RowWriter, read_rows


def row(i, query, source="faq", task_type="short-long", score=None):
    texts = {"positives": [f"answer {i}"], "negatives": [], "positive_scores": None, "negative_scores": None}
    own = {"id": str(i), "query": query, "source": source, "task_type": task_type, "score": score}
    return {**own, **texts, "language": "en"}


@pytest.fixture
def dataset(tmp_path):
    rows = [row(i, f"question {i}") for i in range(100)]
    rows += [row(100 + i, f"Question  {i}!") for i in range(100)]  # the same queries, another answer
    rows += [row(200 + i, f"wiki {i}", source="wiki") for i in range(30)]
    rows += [row(300 + i, f"pair {i}", task_type="bitext") for i in range(50)]
    rows += [row(400 + i, f"like {i}", score=0.5) for i in range(50)]
    rows += [row(500 + i, f"page {i}", task_type="long-short") for i in range(50)]

    def write(rows=rows, name="dataset"):
        folder = tmp_path / name
        folder.mkdir()
        with RowWriter(folder / RECORDS, RECORD_SCHEMA) as writer:
            for one in rows:
                writer.write(one)
        return folder

    write.rows = rows
    return write


def test_a_tenth_of_each_sources_queries_is_taken_at_most(dataset):
    folder = dataset()
    assert set_aside(folder, 1000) == 2 * 10 + 3
    taken, kept = list(read_rows(folder / SET_ASIDE)), list(read_rows(folder / RECORDS))
    assert {one["id"] for one in [*taken, *kept]} == {one["id"] for one in dataset.rows}
    assert len(taken) + len(kept) == len(dataset.rows)
    assert {one["task_type"] for one in taken} == {"short-long"}
    queries = {one["query"].lower().replace("  ", " ").rstrip("!") for one in taken}
    assert len(queries) == 13  # all records of a query go together
    assert not queries & {one["query"].lower().replace("  ", " ").rstrip("!") for one in kept}


def test_the_sources_take_turns_and_the_order_of_rows_does_not_matter(dataset):
    first, second = dataset(), dataset(dataset.rows[::-1], "reversed")
    assert set_aside(first, 4) == set_aside(second, 4)
    ids = [{one["id"] for one in read_rows(folder / SET_ASIDE)} for folder in (first, second)]
    assert ids[0] == ids[1]
    sources = [one["source"] for one in read_rows(first / SET_ASIDE)]
    assert (sources.count("wiki"), len(sources)) == (2, 6)  # two queries of each; those of faq have two rows


@pytest.mark.parametrize("rows", [[row(0, "only one")], []])
def test_a_small_source_keeps_all_its_records(dataset, rows):
    folder = dataset(rows)
    assert set_aside(folder, 100) == 0
    assert not (folder / SET_ASIDE).exists()
    assert len(list(read_rows(folder / RECORDS))) == len(rows)

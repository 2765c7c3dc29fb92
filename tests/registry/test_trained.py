"""Versions found by train key, and the answer of `plan --since-last` with a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from embedline.artifacts.run_folder import read_fingerprint
from embedline.cli.changed import since_last
from embedline.errors import InputError
from embedline.planning.fingerprint import take_fingerprint, write_fingerprint
from embedline.registry.trained import newest_trained, version_with_key


def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def version(uri: str, name: str, **values: str) -> int:
    tags = {f"embedline.{key}": value for key, value in values.items()}
    return int(client(uri).create_model_version(name, "s3://nowhere", tags=tags).version)


def test_versions_are_found_by_their_key(uri: str) -> None:
    assert version_with_key("mine", "a", uri=uri) is None  # no such model
    assert newest_trained("mine", uri=uri) is None
    for name in ("mine", "other"):
        client(uri).create_registered_model(name)
    for number in range(11):  # 10 comes after 9, not after 1
        version(uri, "mine", train_key=f"k{number}", data=str(number))
    version(uri, "mine")  # from outside: it says nothing
    version(uri, "other", train_key="elsewhere")
    assert version_with_key("mine", "k4", uri=uri) == 5
    assert version_with_key("mine", "elsewhere", uri=uri) is None
    assert version_with_key("mine", "k", uri=uri) is None
    newest = newest_trained("mine", uri=uri)
    assert newest is not None
    assert (newest.version, newest.values) == (11, {"train_key": "k10", "data": "10"})
    version(uri, "mine", train_key="k4")
    assert version_with_key("mine", "k4", uri=uri) == 13
    client(uri).delete_model_version("mine", "13")
    assert version_with_key("mine", "k4", uri=uri) == 5


def test_since_last_answer_with_a_registry(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    preset, work = str(tmp_path / "preset.yaml"), tmp_path / "runs"
    (tmp_path / "a.jsonl").write_text('{"query": "how", "pos": ["like this"]}\n')
    (tmp_path / "preset.yaml").write_text("name: mine\ndata: {sources: [{path: a.jsonl}]}\n")

    def ask(*overrides: str) -> tuple[bool, str, list[str]]:
        said = since_last(preset, overrides, work, None, tmp_path / "outputs")
        return said.needed, said.since, [change.text for change in said.changes]

    def registered() -> int:
        write_fingerprint(tmp_path / "run", take_fingerprint(preset, (), work))
        return version(uri, "mine", **read_fingerprint(tmp_path / "run"))

    assert ask() == (True, "", [])
    client(uri).create_registered_model("mine")
    registered()
    assert ask() == (False, "version 1 of mine", [])
    assert ask("seed=4") == (True, "version 1 of mine", ["seed: 0 → 4"])
    before = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text(before * 2)
    needed, since, texts = ask()
    assert (needed, since) == (True, "version 1 of mine")
    assert texts[0].startswith("sources.a: size 39 → 78, rows 1 → 2, checksum ")
    registered()
    (tmp_path / "a.jsonl").write_text(before)  # back to what version 1 was made from
    needed, since, texts = ask()
    assert (needed, since, len(texts)) == (False, "version 2 of mine", 1)
    written = [line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines()]
    assert [value for key, value in written if key == "needed"] == ["true", "false", "true", "true", "false"]
    assert {key for key, _ in written} == {"needed", "train_key", "reason"}


def test_since_last_fails_when_the_registry_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "a.jsonl").write_text(json.dumps({"query": "how", "pos": ["like this"]}) + "\n")
    (tmp_path / "preset.yaml").write_text("name: mine\ndata: {sources: [{path: a.jsonl}]}\n")
    with pytest.raises(InputError, match="does not answer"):
        since_last(str(tmp_path / "preset.yaml"), (), tmp_path / "runs", None, tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()

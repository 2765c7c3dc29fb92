"""Artefacts are compared by digest, once a process, and are on the disk before a name says so."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedline.artifacts import durable, manifest
from embedline.artifacts.checked_json import read_checked_json, write_checked_json
from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import Artifact, file_sha256, read_artifact, require_intact, write_manifest
from embedline.artifacts.record import StepRecord, read_record, read_records, write_record
from embedline.artifacts.store import Store
from embedline.errors import InputError

WEIGHTS = bytes(range(256)) * 128  # 32 kB


def zero(path: Path, size: int = 8192) -> None:
    """Overwrite the middle of a file with zeros, as a power cut does: its size and time stay."""
    before = path.stat()
    at = max(0, (before.st_size - size) // 2)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(min(size, before.st_size)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def written(folder: Path, kind: str = "model", name: str = "model.safetensors") -> Artifact:
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / name).write_bytes(WEIGHTS)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return write_manifest(folder, kind=kind, step="train_supervised", key="k", counts={"layers": 2})


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    (folder / "manifest.json").write_text(json.dumps(values))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "zeros": lambda folder: zero(folder / "model.safetensors"),
    "a bit": lambda folder: (folder / "model.safetensors").write_bytes(b"\x01" + WEIGHTS[1:]),
    "cut": lambda folder: (folder / "model.safetensors").write_bytes(WEIGHTS[:-1]),
    "grown": lambda folder: (folder / "model.safetensors").write_bytes(WEIGHTS + b"\x00"),
    "gone": lambda folder: (folder / "model.safetensors").unlink(),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "zeros in the manifest": lambda folder: zero(folder / "manifest.json", 64),
    "a count": lambda folder: edit_manifest(folder, lambda values: values["counts"].update(layers=3)),
    "no files listed": lambda folder: edit_manifest(folder, lambda values: values["files"].clear()),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_damage_of_an_artefact_is_named(tmp_path: Path, damage: str) -> None:
    made = written(tmp_path / "model")
    assert read_artifact(made.path, "model", digest=made.digest) == made
    DAMAGE[damage](made.path)
    with pytest.raises(InputError) as raised:
        read_artifact(made.path, "model")
    assert str(made.path) in raised.value.where
    if damage in {"zeros", "a bit"}:
        actual = hashlib.sha256((made.path / "model.safetensors").read_bytes()).hexdigest()
        recorded = hashlib.sha256(WEIGHTS).hexdigest()
        assert actual in raised.value.what
        assert recorded in raised.value.what
        assert raised.value.where.endswith("model.safetensors")
        assert "the step train_supervised makes it anew" in raised.value.fix


def test_another_artefact_in_the_place_is_refused(tmp_path: Path) -> None:
    first, other = written(tmp_path / "one"), written(tmp_path / "two", name="other.safetensors")
    shutil.rmtree(first.path)
    other.path.rename(first.path)
    with pytest.raises(InputError, match=f"expected {first.digest}"):
        read_artifact(first.path, "model", digest=first.digest)


def test_a_manifest_of_an_earlier_release_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    made = written(tmp_path / "model")
    edit_manifest(made.path, lambda values: values.pop("checksum"))
    assert read_artifact(made.path).digest == made.digest
    zero(made.path / "model.safetensors")
    with pytest.raises(InputError, match="has changed"):
        read_artifact(made.path)


def test_twenty_readers_of_an_artefact_hash_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = written(tmp_path / "model")
    monkeypatch.setattr(manifest, "_CLOCK_NS", -1)  # as if the files were some seconds old
    hashed: list[str] = []
    real = hashlib.file_digest

    def watched(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", watched)
    for _ in range(20):
        read_artifact(made.path)
    assert sorted(hashed) == ["config.json", "model.safetensors"]
    zero(made.path / "model.safetensors")
    with pytest.raises(InputError, match="has changed"):
        read_artifact(made.path)


def test_a_file_that_just_changed_is_hashed_again(tmp_path: Path) -> None:
    """The clock of a file system is coarse: two states of a file may show the same time."""
    file = tmp_path / "file"
    for content in (b"one", b"two", b"six"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        assert file_sha256(file) == hashlib.sha256(content).hexdigest()


def test_a_folder_from_outside_is_compared_with_our_manifest_only(tmp_path: Path) -> None:
    require_intact(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    require_intact(tmp_path)
    made = written(tmp_path / "model")
    require_intact(made.path)
    zero(made.path / "model.safetensors")
    with pytest.raises(InputError, match="on purpose, remove"):
        require_intact(made.path)


def test_checked_json_keeps_values_and_notices_any_change(tmp_path: Path) -> None:
    values = {"b": [1, 2.5, -0.0, 1e-9], "a": {"ключ": "значение\u2028"}, "nan": None, "pairs": ((1, 2.0),)}
    path = tmp_path / "values.json"
    write_checked_json(path, values)
    assert read_checked_json(path) == json.loads(json.dumps(values))
    raw = path.read_bytes()
    for damaged in (raw.replace(b"2.5", b"2.4"), raw[: len(raw) // 2], b"", b"\x00" * len(raw), b"[]"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"\w"):
            read_checked_json(path)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Flushes and renames in their order, by the last part of their paths."""
    seen: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        seen.append(("flush", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        seen.append(("rename", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    return seen


def test_outputs_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    store = Store(tmp_path / "store")
    with store.writing("pretrain", "key") as draft:
        made = written(draft / "model")
        write_checked_json(draft / "result.json", {"metrics": {}})
        events.clear()
    cut = events.index(("rename", "key"))
    files = {"model.safetensors", "config.json", "manifest.json", "result.json"}
    assert files | {"1_Pooling", "model", draft.name} <= {name for kind, name in events[:cut]}
    assert events[cut + 1 :] == [("flush", "pretrain"), ("flush", "store")]
    found = store.find("pretrain", "key", {"model": "model"})
    assert found is not None
    assert found["model"].digest == made.digest


def test_records_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    write_json(tmp_path / "record.json", {"status": "done"})
    assert [kind for kind, _ in events] == ["flush", "rename", "flush"]
    assert events[0][1].startswith(".record.json")
    assert events[1:] == [("rename", "record.json"), ("flush", tmp_path.name)]


def test_a_folder_that_cannot_be_flushed_is_no_failure_and_a_full_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("x")

    def refuse(number: int) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    import errno

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    durable.flush(tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        durable.flush(file)
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        durable.flush(tmp_path)


def test_the_damaged_stay_until_they_are_made_again(tmp_path: Path) -> None:
    """A plan only looks: it removes nothing."""
    store = Store(tmp_path / "store")
    with store.writing("pretrain", "key") as draft:
        written(draft / "model")
    folder = store.root / "pretrain" / "key" / "model"
    zero(folder / "model.safetensors")
    assert store.find("pretrain", "key", {"model": "model"}) is None
    assert (folder / "model.safetensors").is_file()
    with store.writing("pretrain", "key") as draft:
        written(draft / "model")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [b"", b"\x00" * 300, b'{"step": "min'])
def test_a_damaged_record_is_a_failure_that_can_be_retried(tmp_path: Path, content: bytes) -> None:
    write_record(tmp_path / "steps" / "clean", StepRecord(step="clean", status="done", started_at=1.0))
    write_record(tmp_path / "steps" / "mine", StepRecord(step="mine", status="done", started_at=2.0))
    file = tmp_path / "steps" / "mine" / "record.json"
    file.write_bytes(content)
    records = {record.step: record for record in read_records(tmp_path)}
    assert (records["clean"].status, records["mine"].status, records["mine"].final) == (
        "done",
        "failed",
        False,
    )
    assert str(file) in records["mine"].error
    assert read_record(tmp_path / "steps" / "none") is None

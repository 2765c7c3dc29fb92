"""What `embedline clean-up` removes, and what it must never touch."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import write_manifest
from embedline.artifacts.record import OutputRecord, StepRecord, write_record
from embedline.artifacts.workspace import Workspace
from embedline.errors import InputError
from embedline.runs.retention import find_removals, remove


def outputs(place: Workspace, step: str, key: str, inputs: dict[str, str] | None = None) -> OutputRecord:
    """An artefact in the store, as a step's record names it."""
    kind = "scores" if step == "scores" else "model"
    with place.store.writing(step, key) as draft:
        folder = draft / kind
        folder.mkdir()
        (folder / "weights").write_text(f"{step} {key}")
        digest = write_manifest(folder, kind=kind, step=step, key=key, inputs=inputs).digest
    return OutputRecord(kind=kind, path=str(place.store.root / step / key / kind), digest=digest)


def run(place: Workspace, name: str, started: float, made: dict[str, OutputRecord], **more: object) -> Path:
    folder = place.run_folder(name)
    write_json(folder / "run.json", {"run": name, "status": "succeeded", "started": started, **more})
    for step, output in made.items():
        record = StepRecord(step=step, status="done", key=step, outputs={"model": output})
        write_record(folder / "steps" / step, record)
    return folder


def age(root: Path, seconds: float) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Three runs, a day and more old: the first and the last share the artefact of `pretrain`."""
    found = Workspace(tmp_path / "runs")
    shared = outputs(found, "pretrain", "shared")
    run(found, "first", 1.0, {"pretrain": shared, "mine": outputs(found, "mine", "one")})
    run(found, "second", 2.0, {"pretrain": outputs(found, "pretrain", "second")})
    run(found, "third", 3.0, {"pretrain": shared})
    (found.root / "latest").symlink_to("third")
    outputs(found, "scores", "kept", {"evaluation": shared.digest or ""})
    outputs(found, "scores", "lost", {"evaluation": "of nobody"})
    (found.checkpoints("mine", "done")).mkdir(parents=True)
    (found.store.root / "mine" / ".one.abc.draft").mkdir()
    age(found.root, 100_000)
    return found


def left(place: Workspace) -> set[str]:
    return {
        path.relative_to(place.store.root).as_posix()
        for path in place.store.root.glob("*/*")
        if path.is_dir()
    }


def test_what_a_kept_run_refers_to_stays_and_what_nobody_refers_to_goes(place: Workspace) -> None:
    found = find_removals(place, keep=1)
    assert {(r.what, r.path.name) for r in found} == {
        ("run", "first"),
        ("run", "second"),
        ("outputs", "one"),
        ("outputs", "second"),
        ("outputs", "lost"),
        ("draft", ".one.abc.draft"),
        ("checkpoints", "mine-done"),
    }
    assert left(place) == {
        "pretrain/shared",
        "pretrain/second",
        "mine/one",
        "mine/.one.abc.draft",
        "scores/kept",
        "scores/lost",
    }, "saying what would go removes nothing"
    remove(found)
    assert left(place) == {"pretrain/shared", "scores/kept"}
    assert sorted(path.name for path in place.root.glob("[!.]*")) == ["latest", "third"]
    assert find_removals(place, keep=1) == []


def test_the_run_that_latest_points_at_stays_however_few_are_kept(place: Workspace) -> None:
    (place.root / "latest").unlink()
    (place.root / "latest").symlink_to("first")
    assert {r.path.name for r in find_removals(place, keep=0) if r.what == "run"} == {"second", "third"}


def test_what_was_touched_lately_stays(place: Workspace) -> None:
    age(place.store.root / "mine" / "one", 10)
    age(place.run_folder("second"), 10)
    names = {r.path.name for r in find_removals(place, keep=1)}
    assert "one" not in names
    assert "second" not in names, "neither the run nor what it refers to"


def test_a_moved_workspace_keeps_what_its_runs_refer_to(place: Workspace, tmp_path: Path) -> None:
    moved = Workspace(Path(shutil.move(place.root, tmp_path / "moved")))
    age(moved.root, 100_000)
    assert "shared" not in {r.path.name for r in find_removals(moved, keep=1)}


def test_an_unfinished_step_keeps_its_checkpoints_and_an_unclosed_run_everything(place: Workspace) -> None:
    place.checkpoints("pretrain", "k").mkdir(parents=True)
    write_record(
        place.step_folder("third", "pretrain"), StepRecord(step="pretrain", status="killed", key="k")
    )
    (place.run_folder("second") / "run.json").unlink()  # a cluster's run: its record is written at its end
    age(place.root, 100_000)
    names = {r.path.name for r in find_removals(place, keep=1)}
    assert not names & {"pretrain-k", "second"}


def test_nothing_is_removed_while_a_run_is_going_on(place: Workspace) -> None:
    write_json(place.run_folder("third") / "run.json", {"run": "third", "status": "running", "started": 3.0})
    with pytest.raises(InputError, match="third: is in progress"):
        find_removals(place, keep=1)
    with pytest.raises(InputError, match="no such work folder"):
        find_removals(Workspace(place.root / "nowhere"), keep=1)
    assert json.loads((place.run_folder("first") / "run.json").read_text())["run"] == "first"


def test_outputs_of_a_kept_run_with_a_damaged_record_stay(place: Workspace) -> None:
    record = StepRecord(step="mine", status="done", key="one", outputs={"model": outputs(place, "mine", "x")})
    folder = run(place, "fourth", 4.0, {}, steps=[record.model_dump()])
    write_json(folder / "steps" / "mine" / "record.json", {})
    age(place.root, 100_000)
    assert place.store.root / "mine" / "x" not in {removal.path for removal in find_removals(place, 1)}
    (place.store.root / "scores" / "kept" / "scores" / "manifest.json").write_bytes(bytes(200))
    age(place.root, 100_000)
    assert place.store.root / "scores" / "kept" in {removal.path for removal in find_removals(place, 1)}


def test_a_teachers_vectors_go_with_the_runs_that_used_them(place: Workspace) -> None:
    def kept(name: str, used: float) -> Path:
        folder = place.teacher_vectors(name)
        folder.mkdir(parents=True)
        (folder / "a.keys.npy").write_bytes(b"")
        for path in (folder / "a.keys.npy", folder):
            os.utime(path, (used, used))
        return folder

    old, recent = kept("old", 1.5), kept("recent", 2.5)  # the runs began at 1, 2 and 3
    assert not [r for r in find_removals(place, 3) if r.what == "vectors"]
    assert [r.path for r in find_removals(place, 2) if r.what == "vectors"] == [old]
    remove(find_removals(place, 1))
    assert not old.exists()
    assert not recent.exists()

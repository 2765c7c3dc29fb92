"""Which runs a work folder keeps, and what of the store, the checkpoints and the drafts nobody needs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedline.artifacts.manifest import MANIFEST
from embedline.artifacts.record import read_records
from embedline.artifacts.run_folder import read_run
from embedline.artifacts.workspace import Workspace
from embedline.errors import InputError
from embedline.runs import record as runrecord

DAY_S = 86_400.0


@dataclass(frozen=True)
class Removal:
    """What goes: a run, a step's outputs, checkpoints, or a draft that a killed step left."""

    what: str
    path: Path
    size: int


def superfluous(place: Workspace, keep: int, *, grace_s: float = DAY_S) -> list[Removal]:
    """What can go when the newest `keep` runs are to stay as they are.

    A run stays too while `latest` points at it. Outputs stay that a run which stays, or one that nobody has
    closed, refers to, and checkpoints of steps that such a run has not finished. Nothing that was touched
    within `grace_s` goes: a pod elsewhere may be at work with it. Versions in the registry are copies, and
    stay as well.

    Raises:
        InputError: a run is going on here, or there is no such work folder.
    """
    if not place.root.is_dir():
        raise InputError("no such work folder.", where=str(place.root), fix="Give the --work of your runs.")
    before, latest = time.time() - grace_s, (place.root / "latest").resolve()
    closed, going, kept = _runs(place)
    if going:
        raise InputError("is going on.", where=str(going[0]), fix="Clean up after its end.")
    old = [run for run in closed[keep:] if run != latest and _touched(run) < before]
    used, unfinished, digests = _references(place, [*kept, *(run for run in closed if run not in old)])
    found = [("run", run) for run in old]
    for step in _folders(place.store.root):
        for outputs in step.iterdir():
            draft = outputs.name.startswith(".") and outputs.name.endswith(".draft")
            if draft or (outputs.is_dir() and outputs not in used and not _scores_of(outputs, digests)):
                found.append(("draft" if draft else "outputs", outputs))
    for checkpoints in _folders(place.internal / "checkpoints"):
        if checkpoints.name not in unfinished:
            found.append(("checkpoints", checkpoints))
    still = [(what, path) for what, path in found if what == "run" or _touched(path) < before]
    return [Removal(what, path, _size(path)) for what, path in still]


def remove(removals: Iterable[Removal]) -> None:
    """Runs first, then what only they referred to; a manifest goes before its folder: half of one is none."""
    for removal in removals:
        for manifest in removal.path.glob(f"*/{MANIFEST}"):
            if removal.what != "run":
                manifest.unlink()
        shutil.rmtree(removal.path, ignore_errors=True)


def _runs(place: Workspace) -> tuple[list[Path], list[Path], list[Path]]:
    """Closed runs, newest first; runs going on here; runs that have no record yet or are another host's."""
    closed: list[tuple[float, Path]] = []
    going, kept = [], []
    for folder in _folders(place.root):
        record = read_run(folder)
        if folder.is_symlink() or not (record or (folder / "steps").is_dir()):
            continue
        if record.get("status") == "running" and not runrecord.is_abandoned(record):
            going.append(folder)
        elif record:
            closed.append((float(record.get("started") or 0.0), folder))
        else:
            kept.append(folder)
    return [folder for _, folder in sorted(closed, reverse=True)], going, kept


def _references(place: Workspace, runs: Iterable[Path]) -> tuple[set[Path], set[str], set[str]]:
    """The folders of outputs that runs refer to, the names of unfinished checkpoints, the outputs' digests.

    A record's path may be of another mount, or from before the workspace was moved: its end is what counts.
    """
    used: set[Path] = set()
    unfinished: set[str] = set()
    digests: set[str] = set()
    for run in runs:
        for record in read_records(run):
            if record.status != "done" and record.key:
                unfinished.add(f"{record.step}-{record.key}")
            for output in record.outputs.values():
                if output.path:
                    used.add(place.store.root.joinpath(*Path(output.path).parts[-3:-1]))
                    digests.add(output.digest or "")
    return used, unfinished, digests


def _scores_of(outputs: Path, digests: set[str]) -> bool:
    """Scores are kept by model, and no record names them: they stay with their evaluation sets."""
    manifest = outputs / "scores" / MANIFEST
    if outputs.parent.name != "scores" or not manifest.is_file():
        return False
    inputs = json.loads(manifest.read_text(encoding="utf-8"))["inputs"]
    return inputs.get("evaluation") in digests


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _touched(folder: Path) -> float:
    return max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

"""Retention: which runs a work folder keeps, and which outputs, checkpoints and drafts no run needs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedline.artifacts.manifest import MANIFEST, read_manifest
from embedline.artifacts.record import read_records
from embedline.artifacts.run_folder import read_run
from embedline.artifacts.workspace import Workspace
from embedline.errors import InputError
from embedline.runs.abandoned import current_record

DAY_S = 86_400.0


@dataclass(frozen=True)
class Removal:
    """One removal: a run, a step's outputs, checkpoints, a draft of a killed step, a teacher's vectors."""

    what: str
    path: Path
    size: int


def find_removals(workspace: Workspace, keep: int, *, grace_s: float = DAY_S) -> list[Removal]:
    """List what can be removed when the newest `keep` runs stay.

    The run that `latest` points at stays too. So do the outputs that a kept or an unclosed run refers to, the
    checkpoints of its unfinished steps, and a teacher's vectors that were used since it began. Nothing
    changed within `grace_s` is removed: a pod on another machine may be using it. Registered versions are
    copies and are not touched.

    Raises:
        InputError: a run is in progress here, or there is no such work folder.
    """
    if not workspace.root.is_dir():
        raise InputError(
            "no such work folder.", where=str(workspace.root), fix="Give the --work of your runs."
        )
    before, latest = time.time() - grace_s, (workspace.root / "latest").resolve()
    closed, going, kept = _runs(workspace)
    if going:
        raise InputError("is in progress.", where=str(going[0]), fix="Clean up after its end.")
    old = [run for run in closed[keep:] if run != latest and _touched(run) < before]
    used, unfinished, digests = _references(workspace, [*kept, *(run for run in closed if run not in old)])
    found = [("run", run) for run in old]
    for step in _folders(workspace.store.root):
        for outputs in step.iterdir():
            draft = outputs.name.startswith(".") and outputs.name.endswith(".draft")
            if draft or (outputs.is_dir() and outputs not in used and not _scores_of(outputs, digests)):
                found.append(("draft" if draft else "outputs", outputs))
    for checkpoints in _folders(workspace.internal / "checkpoints"):
        if checkpoints.name not in unfinished:
            found.append(("checkpoints", checkpoints))
    oldest = min((read_run(run).started or before for run in closed if run not in old), default=before)
    for vectors in _folders(workspace.internal / "teachers"):
        if not kept and _touched(vectors) < oldest:  # every training touches those of its teacher
            found.append(("vectors", vectors))
    removable = [(what, path) for what, path in found if what == "run" or _touched(path) < before]
    return [Removal(what, path, _size(path)) for what, path in removable]


def remove(removals: Iterable[Removal]) -> None:
    """Remove runs first, then what only they referred to; an artefact loses its manifest before its files."""
    for removal in removals:
        for manifest in removal.path.glob(f"*/{MANIFEST}"):
            if removal.what != "run":
                manifest.unlink()
        shutil.rmtree(removal.path, ignore_errors=True)


def _runs(workspace: Workspace) -> tuple[list[Path], list[Path], list[Path]]:
    """Return closed runs (newest first), runs in progress, and runs without a record."""
    closed: list[tuple[float, Path]] = []
    going, kept = [], []
    for folder in _folders(workspace.root):
        record = current_record(folder)
        if folder.is_symlink() or not (record.status or (folder / "steps").is_dir()):
            continue
        if record.status == "running":
            going.append(folder)
        elif record.status:
            closed.append((record.started, folder))
        else:
            kept.append(folder)
    return [folder for _, folder in sorted(closed, reverse=True)], going, kept


def _references(workspace: Workspace, runs: Iterable[Path]) -> tuple[set[Path], set[str], set[str]]:
    """Return the output folders that runs refer to, names of unfinished checkpoints, and output digests.

    Only the end of a record's path is used: the workspace may have been moved or mounted elsewhere.
    """
    used: set[Path] = set()
    unfinished: set[str] = set()
    digests: set[str] = set()
    for run in runs:
        for record in (*read_records(run), *read_run(run).steps):  # either may be damaged
            if record.status != "done" and record.key:
                unfinished.add(f"{record.step}-{record.key}")
            for output in record.outputs.values():
                if output.path:
                    used.add(workspace.store.root.joinpath(*Path(output.path).parts[-3:-1]))
                    digests.add(output.digest or "")
    return used, unfinished, digests


def _scores_of(outputs: Path, digests: set[str]) -> bool:
    """Return whether these are scores of an evaluation set in use; no record refers to scores by model."""
    if outputs.parent.name != "scores":
        return False
    try:
        return read_manifest(outputs / "scores").inputs.get("evaluation") in digests
    except InputError:
        return False


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _touched(folder: Path) -> float:
    return max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

"""An artefact: a folder whose `manifest.json` records its kind, its producer and its files."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from embedline.artifacts.checked_json import read_checked_json, write_checked_json
from embedline.errors import InputError, first_line

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

# File systems round times: a file that changed within this time may change again and show the same time.
_CLOCK_NS = 2_000_000_000
_known_digests: dict[tuple[int, ...], str] = {}  # state of a file → SHA-256


class FileEntry(BaseModel):
    """One file of an artefact, its path relative to the folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """The description of an artefact: its kind, its origin (step, key, inputs), its files and counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    schema_version: int = SCHEMA_VERSION
    step: str
    key: str
    inputs: dict[str, str] = {}
    files: list[FileEntry] = []
    counts: dict[str, int] = {}
    metadata: dict[str, Any] = {}

    @property
    def digest(self) -> str:
        """SHA-256 over the files' paths and digests: equal content has an equal digest."""
        lines = "\n".join(f"{f.path} {f.sha256}" for f in sorted(self.files, key=lambda f: f.path))
        return hashlib.sha256(f"{self.kind}\n{lines}".encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A folder whose files are those of its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def digest(self) -> str:
        return self.manifest.digest


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; a process reads a file once, and again only after a change.

    The time of the last change of status (ctime) is part of a file's state: programs cannot set it back.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        known = _known_digests.get(state)
        if known is not None:
            return known
        settled = time.time_ns() - status.st_ctime_ns > _CLOCK_NS
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if settled:
        _known_digests[state] = digest
    return digest


def is_added_by_loading(path: str) -> bool:
    """Return whether a file below a model's folder was written there by a program that loaded the model.

    MLflow writes `registered_model_meta` (name and version) into the folder that it loads as `models:/NAME`:
    the stored folder itself when that is on this machine (`ModelsArtifactRepository` in its source).
    Python writes the bytecode of the modules that it imports. Neither is part of the model.

    Args:
        path: relative to the folder.
    """
    return path == "registered_model_meta" or "__pycache__" in PurePosixPath(path).parts[:-1]


def folder_entries(folder: Path) -> list[FileEntry]:
    """List every file below `folder` in path order, without manifests and what loading the model added."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return [
        FileEntry(path=path, size=p.stat().st_size, sha256=file_sha256(p))
        for path, p in files.items()
        if p.name != MANIFEST and not is_added_by_loading(path)
    ]


def folder_digest(folder: Path) -> str:
    """Return the digest of a folder without a manifest (an outside model)."""
    return Manifest(kind="folder", step="", key="", files=folder_entries(folder)).digest


def write_manifest(
    folder: Path,
    *,
    kind: str,
    step: str,
    key: str,
    inputs: dict[str, str] | None = None,
    counts: dict[str, int] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Artifact:
    """Describe the files of `folder` in its manifest; the last write before the folder is renamed."""
    manifest = Manifest(
        kind=kind,
        step=step,
        key=key,
        inputs=inputs or {},
        files=folder_entries(folder),
        counts=counts or {},
        metadata=metadata or {},
    )
    write_checked_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return Artifact(folder, manifest)


def read_artifact(folder: Path, kind: str | None = None, *, digest: str | None = None) -> Artifact:
    """Open an artefact, and compare each of its files with the manifest: by SHA-256, once a process.

    Args:
        digest: of the artefact that is meant, where the caller knows it.

    Raises:
        InputError: no manifest, a damaged one, another kind or digest than expected, or a file that is
            missing or not the one that was written.
    """
    manifest = read_manifest(folder)
    if kind is not None and manifest.kind != kind:
        raise InputError(f"holds {manifest.kind!r}, expected {kind!r}.", where=str(folder))
    again = f"Run again: the step {manifest.step} makes it anew." if manifest.step else "Make it again."
    for entry in manifest.files:
        if (problem := _problem(folder, entry)) is not None:
            raise InputError(problem, where=str(folder / entry.path), fix=again)
    if digest is not None and manifest.digest != digest:
        what = f"the artefact has the digest {manifest.digest}, expected {digest}."
        raise InputError(what, where=str(folder), fix=again)
    return Artifact(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an artefact without looking at its files.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(read_checked_json(path))
    except OSError as error:
        raise InputError("not an artefact: it has no manifest.json.", where=str(folder)) from error
    except ValueError as error:
        raise InputError(
            f"the manifest is damaged ({first_line(error)}).",
            where=str(path),
            fix="Run again: the step that wrote it makes it anew.",
        ) from error


def require_intact(folder: Path) -> None:
    """Compare a folder from outside with its manifest, if it has one of ours.

    Raises:
        InputError: a file is missing or not the one that was written.
    """
    try:
        if "schema_version" not in read_checked_json(folder / MANIFEST):
            return  # another program's
    except OSError:
        return
    except ValueError:
        pass  # damaged
    try:
        read_artifact(folder)
    except InputError as error:
        fix = (
            f"{error.fix} In a registry's folder, restore the file from a copy. If you changed it on "
            f"purpose, remove {folder / MANIFEST}."
        )
        raise InputError(error.what, where=error.where, fix=fix) from error


def _problem(folder: Path, entry: FileEntry) -> str | None:
    """Return how a file differs from its entry in the manifest; None when it does not."""
    file = folder / entry.path
    if not file.is_file():
        return "the file is missing."
    if (size := file.stat().st_size) != entry.size:
        return f"the file has {size} bytes, {entry.size} were written."
    if (found := file_sha256(file)) != entry.sha256:
        return f"the file has changed since it was written: SHA-256 {found}, expected {entry.sha256}."
    return None

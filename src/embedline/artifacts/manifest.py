"""An artefact: a folder whose `manifest.json` records its kind, its producer and its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from embedline.errors import InputError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


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
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return Artifact(folder, manifest)


def read_artifact(folder: Path, kind: str | None = None, *, verify_digests: bool = False) -> Artifact:
    """Open an artefact.

    Raises:
        InputError: no manifest, another kind than expected, a missing file, or a file of another size
            (or, with `verify_digests`, of another content).
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError("not an artefact: it has no manifest.json.", where=str(folder))
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"the manifest is damaged ({error}).", where=str(path)) from error
    if kind is not None and manifest.kind != kind:
        raise InputError(f"holds {manifest.kind!r}, expected {kind!r}.", where=str(folder))
    for entry in manifest.files:
        file = folder / entry.path
        if not file.is_file() or file.stat().st_size != entry.size:
            raise InputError(
                f"{entry.path} is missing or not {entry.size} bytes long.",
                where=str(folder),
                fix="Delete the folder; its step makes it again at the next run.",
            )
        if verify_digests and file_sha256(file) != entry.sha256:
            raise InputError(f"{entry.path} has changed since it was written.", where=str(folder))
    return Artifact(folder, manifest)

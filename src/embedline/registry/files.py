"""The check that the files of a version are, byte for byte, those that were registered."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from embedline.artifacts.manifest import MANIFEST, file_sha256, folder_entries, is_added_by_loading
from embedline.config.limits import VERSION_TAG
from embedline.errors import InputError, StepError
from embedline.quoting import file_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

FILES_TAG = "embedline.files"
FILES_DIGEST_TAG = "embedline.files_digest"
_REPAIR = (
    "Do not deploy it. Restore the file from a backup or from the run that made it, or use another version: "
    "embedline rollback NAME, embedline promote NAME VERSION."
)


def file_tags(folder: Path) -> dict[str, str]:
    """Return, as tags, the SHA-256 of every file below `folder` as JSON, and one digest of all of them.

    Raises:
        InputError: there are more files than a version's tag can list, or MLflow could not return one.
    """
    digests = {entry.path: entry.sha256 for entry in folder_entries(folder)}
    for name in digests:
        if "#" in name or unquote(name) != name:  # MLflow refuses #, and looks for the unquoted name
            raise InputError(
                "has a name that MLflow reads as an address.", where=str(folder / name), fix="Rename it."
            )
    text = json.dumps(digests, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if len(text) > VERSION_TAG:
        raise InputError(f"holds {len(digests)} files, too many to register.", where=str(folder))
    return {FILES_TAG: text, FILES_DIGEST_TAG: hashlib.sha256(text.encode()).hexdigest()}


def recorded_files(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of every file as a version's tags record them; empty without a record.

    A folder that MLflow had downloaded may have been registered with the file that MLflow added to it.
    """
    digests: dict[str, str] = json.loads(tags.get(FILES_TAG) or "{}")
    return {path: digest for path, digest in digests.items() if not is_added_by_loading(path)}


def remove_added_by_loading(folder: Path) -> None:
    """Delete what loading the model added to its folder: in a copy it would name another version."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_added_by_loading(path.relative_to(folder).as_posix()):
            path.unlink()


def verify_files(client: MlflowClient, version: ModelVersion, uri: str) -> int:
    """Compare every file with what was recorded at registration; each is read once.

    What loading the model added to its folder is ignored.

    Returns:
        The number of files.

    Raises:
        InputError: nothing was recorded.
        StepError: a file has changed, is missing, or was added.
    """
    where = f"{version.name} version {version.version}"
    recorded = recorded_files(version.tags)
    if not recorded:
        raise InputError(
            "no digests were recorded at registration.",
            where=where,
            fix="Register it through the line (embedline run), which records them.",
        )
    location = location_of(client, version)
    folder = local_path(location)
    stored = _local_digests(folder) if folder else _remote_digests(location, uri)
    _require_same(recorded, stored, f"{where}, {location}")
    return len(recorded)


def verify_folder(folder: Path, tags: Mapping[str, str], where: str) -> None:
    """Compare a folder on this machine with what a version's tags record; without a record, do nothing.

    Raises:
        StepError: a file has changed, is missing, or was added.
    """
    if recorded := recorded_files(tags):
        _require_same(recorded, _local_digests(folder), f"{where}, {folder}")


def _require_same(recorded: Mapping[str, str], stored: Mapping[str, str], where: str) -> None:
    wrong = sorted(path for path in recorded.keys() | stored.keys() if recorded.get(path) != stored.get(path))
    if not wrong:
        return
    path = wrong[0]
    what = "is missing" if path not in stored else "was added" if path not in recorded else "has changed"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    digests = f"SHA-256 {stored.get(path, 'none')}, recorded {recorded.get(path, 'none')}"
    raise StepError(f"{path} {what} since it was registered{more}: {digests}.", where=where, fix=_REPAIR)


def location_of(client: MlflowClient, version: ModelVersion) -> str:
    """Return the URI of a version's files."""
    if version.model_id:
        return str(client.get_logged_model(version.model_id).artifact_location)
    return str(client.get_model_version_download_uri(version.name, version.version))


def local_path(location: str) -> Path | None:
    """Return the folder of a file URI; None when it is not on this machine."""
    path = file_path(location)
    return path if path and path.is_dir() else None


def _local_digests(folder: Path) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in folder_entries(folder)}


def _remote_digests(location: str, uri: str) -> dict[str, str]:
    """Download and hash one file at a time, so that only the largest file needs disk space."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(location, tracking_uri=uri)
    digests = {}
    for path in _listed(repository):
        with tempfile.TemporaryDirectory() as folder:
            arrived = repository.download_artifacts(path, dst_path=folder)  # type: ignore[no-untyped-call]
            digests[path] = file_sha256(Path(arrived))
    return digests


def _listed(repository: ArtifactRepository) -> list[str]:
    """List the files of a location as `folder_entries` lists those of a folder."""
    files: list[str] = []
    folders: list[str | None] = [None]
    while folders:
        for item in repository.list_artifacts(folders.pop()):
            if item.is_dir:
                folders.append(item.path)
            elif Path(item.path).name != MANIFEST and not is_added_by_loading(item.path):
                files.append(item.path)
    return sorted(files)

"""The files of a registered version in a folder on this machine, compared with its recorded digests."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.artifacts.durable import put_in_place
from embedline.artifacts.manifest import folder_digest, read_artifact
from embedline.errors import InputError, StepError
from embedline.registry.files import FILES_TAG, location_of, verify_folder
from embedline.registry.server import client, tracking_errors
from embedline.registry.versions import DIGEST_TAG, find_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_log = logging.getLogger(__name__)


def download(name: str, version: int, dst: Path, *, uri: str) -> Path:
    """Copy the files of a version to `dst`, which appears complete and flushed to the disk, or not at all.

    Raises:
        InputError: no such version, or `dst` exists.
        StepError: the downloaded files are not those that were registered.
    """
    from mlflow.artifacts import download_artifacts

    if dst.exists():
        raise InputError("exists already.", where=str(dst))
    with tracking_errors(uri):
        opened = client(uri)
        registered = find_version(opened, name, version, uri)
        dst.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dst.parent, prefix=f".{dst.name}.") as draft:
            arrived = download_artifacts(location_of(opened, registered), dst_path=draft, tracking_uri=uri)
            _check_arrived(Path(arrived), registered)
            try:
                put_in_place(Path(arrived), dst)
            except OSError as error:
                if dst.exists():  # another process was faster
                    raise InputError("exists already.", where=str(dst)) from error
                raise
    return dst


def downloaded(name: str, version: int, folder: Path, *, uri: str) -> Path:
    """Return `folder` with the files of a version; they are downloaded unless they are there, undamaged.

    Raises:
        As `download`, but for an existing folder.
    """
    if folder.is_dir():
        with tracking_errors(uri):
            tags = find_version(client(uri), name, version, uri).tags
        try:
            verify_folder(folder, tags, f"{name} version {version}")
            return folder
        except StepError as error:
            _log.warning("%s It is downloaded again.", error.what)
            shutil.rmtree(folder)
    try:
        return download(name, version, folder, uri=uri)
    except InputError:
        if folder.is_dir():  # another process has downloaded it meanwhile
            return folder
        raise


def _check_arrived(folder: Path, version: ModelVersion) -> None:
    """Compare with the digests of all files; for a version of an older embedline, with the model's digest."""
    tags, where = version.tags, f"{version.name} version {version.version}"
    if FILES_TAG in tags:
        verify_folder(folder, tags, f"{where}, downloaded")
        return
    digest = tags.get(DIGEST_TAG, "")
    if not digest or folder_digest(folder) == digest:
        return
    try:
        arrived = read_artifact(folder).digest
    except InputError as error:
        raise StepError(f"the downloaded files are not those that were registered: {error}") from error
    if arrived != digest:
        what = f"the downloaded files have the digest {arrived[:12]}, the registered ones {digest[:12]}."
        raise StepError(what, where=str(folder))

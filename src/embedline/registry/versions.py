"""Versions of a registered model: raw model folders with a digest, found again by alias."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from embedline.artifacts.manifest import folder_digest, read_artifact
from embedline.errors import InputError, StepError
from embedline.registry.server import (
    as_global_store,
    client,
    error_code,
    experiment_id,
    host_lock,
    quoted,
    reaching,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "embedline.digest"


@dataclass(frozen=True)
class ChampionRef:
    """A version that an alias points at.

    Args:
        digest: of the model's artefact, empty when the version was registered by something else.
        uri: where its files lie, as mlflow names it.
        path: the same as a folder of this machine, None when it is elsewhere; `download` works for both.
    """

    name: str
    alias: str
    version: int
    digest: str
    uri: str
    path: Path | None
    tags: Mapping[str, str]


def register(
    name: str,
    model_folder: Path,
    *,
    digest: str,
    tags: Mapping[str, str],
    uri: str,
    run_id: str | None = None,
    experiment: str = "embedline",
    artifact_root: str | None = None,
) -> int:
    """Register a model folder as it is; MLflow keeps a copy.

    The same digest under the same name is one version: it is returned, with `tags` set on it, and nothing is
    copied again. An upload that a crash has cut off is taken up, not left behind.

    Args:
        run_id: MLflow id of the run that made the model.

    Raises:
        InputError: a name that MLflow does not take.
        TrackingError: the server failed.
    """
    logging.getLogger("mlflow.store.model_registry").setLevel(logging.WARNING)
    with reaching(uri), host_lock(uri, "register", name):
        opened = client(uri)
        _ensure_model(opened, name)
        known = _find_version(opened, name, digest)
        if known is None:
            experiment_key = experiment_id(opened, uri, experiment, artifact_root)
            logged = _logged_model(opened, experiment_key, model_folder, digest, run_id)
            with as_global_store(uri):
                known = opened.create_model_version(
                    name,
                    f"models:/{logged.model_id}",
                    run_id=run_id,
                    tags={DIGEST_TAG: digest},
                    model_id=logged.model_id,
                )
        for key, value in tags.items():
            opened.set_model_version_tag(name, str(known.version), key, str(value))
        return int(known.version)


def get_champion(name: str, alias: str = "champion", *, uri: str) -> ChampionRef | None:
    """The version under `alias`, or None when there is no such model or alias."""
    with reaching(uri):
        opened = client(uri)
        number = read_aliases(opened, name).get(alias)
        if number is None:
            return None
        version = opened.get_model_version(name, str(number))
        location = _location(opened, version)
        tags = dict(version.tags)
        return ChampionRef(
            name, alias, number, tags.get(DIGEST_TAG, ""), location, _local_path(location), tags
        )


def aliases(name: str, *, uri: str) -> dict[str, int]:
    """The aliases of a registered model; empty when there is no such model."""
    with reaching(uri):
        return read_aliases(client(uri), name)


def version_of(name: str, digest: str, *, uri: str) -> int | None:
    """The version that holds `digest`, or None."""
    with reaching(uri):
        found = _find_version(client(uri), name, digest)
        return None if found is None else int(found.version)


def download(name: str, version: int, dst: Path, *, uri: str) -> Path:
    """Copy the files of a version to `dst`, which appears complete or not at all.

    Raises:
        InputError: no such version, or `dst` exists.
        StepError: what arrived is not what was registered.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    if dst.exists():
        raise InputError("exists already.", where=str(dst))
    with reaching(uri):
        opened = client(uri)
        try:
            found = opened.get_model_version(name, str(version))
        except MlflowException as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                raise InputError(f"{name} has no version {version}.", where=uri) from error
            raise
        dst.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dst.parent, prefix=f".{dst.name}.") as draft:
            arrived = download_artifacts(_location(opened, found), dst_path=draft, tracking_uri=uri)
            _check_digest(Path(arrived), found.tags.get(DIGEST_TAG, ""))
            shutil.move(arrived, dst)
    return dst


def _check_digest(folder: Path, digest: str) -> None:
    """A model of ours is checked file by file; an outside one has only the digest of the whole folder."""
    if not digest or folder_digest(folder) == digest:
        return
    try:
        arrived = read_artifact(folder, verify_digests=True).digest
    except InputError as error:
        raise StepError(f"what arrived is not what was registered: {error}") from error
    if arrived != digest:
        what = f"what arrived has digest {arrived[:12]}, registered was {digest[:12]}."
        raise StepError(what, where=str(folder))


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error_code(error) == "INVALID_PARAMETER_VALUE":
            raise InputError(
                f"{name!r} is not a name for a registered model.", where="promote.model"
            ) from error
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    condition = f"name = {quoted(name)} and tags.`{DIGEST_TAG}` = {quoted(digest)}"
    try:
        found = client.search_model_versions(condition)
    except Exception as error:
        if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return min(found, key=lambda version: int(version.version), default=None)


def _logged_model(
    client: MlflowClient, experiment: str, folder: Path, digest: str, run_id: str | None
) -> LoggedModel:
    """The uploaded files: those of an earlier registration, or of one that was cut off, or new ones."""
    found = client.search_logged_models([experiment], f"tags.`{DIGEST_TAG}` = {quoted(digest)}")
    ready = [model for model in found if model.status == "READY"]
    if ready:
        return ready[0]
    pending = [model for model in found if model.status == "PENDING"]
    logged = (
        pending[0]
        if pending
        else client.create_logged_model(
            experiment, name=f"model-{digest[:12]}", source_run_id=run_id, tags={DIGEST_TAG: digest}
        )
    )
    client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, "READY")


def read_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """As `aliases`, over a client that is open already."""
    from mlflow.exceptions import MlflowException

    try:
        found: Any = client.get_registered_model(name)
    except MlflowException as error:
        if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: int(version) for alias, version in found.aliases.items()}


def _location(client: MlflowClient, version: ModelVersion) -> str:
    if version.model_id:
        return str(client.get_logged_model(version.model_id).artifact_location)
    return str(client.get_model_version_download_uri(version.name, version.version))


def _local_path(location: str) -> Path | None:
    parts = urlparse(location)
    if parts.scheme not in {"", "file"}:
        return None
    path = Path(unquote(parts.path))
    return path if path.is_dir() else None

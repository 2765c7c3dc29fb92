"""Versions of a registered model: register a model folder, find it by alias or digest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.durable import flush_tree
from embedline.config.names import CHAMPION, alias_problem
from embedline.errors import InputError
from embedline.gate.outcome import Outcome
from embedline.registry.files import FILES_DIGEST_TAG, file_tags, local_path, location_of
from embedline.registry.server import (
    as_global_store,
    client,
    error_code,
    experiment_id,
    host_lock,
    quoted,
    tracking_errors,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

DIGEST_TAG = "embedline.digest"
MODEL_TAG = "embedline.registered_model"  # on uploaded files: the registered model they belong to
VERDICT_TAG = "verdict"
REASONS_TAG = "verdict.reasons"
PASSED, NOT_JUDGED = Outcome.PASSED.value, Outcome.NOT_JUDGED.value
THIRD_PARTY = (
    "outside"  # verdict of a first champion that the line did not make: there was nothing to compare
)
SCORES_TAG = "embedline.scores"  # JSON: evaluation set → main score
INDEX_TAG = "embedline.index_version"
JUDGED_AGAINST_TAG = "embedline.judged_against"  # see `judged_against_tag`
JUDGED_AT_TAG = "embedline.judged_at"  # milliseconds since the epoch
_MAX_DESCRIPTION = 5000  # characters, of MLflow's column


def judged_against_tag(alias: str) -> str:
    """Return the tag with the version that the alias had when the gate decided, or `none`."""
    return JUDGED_AGAINST_TAG if alias == CHAMPION else f"{JUDGED_AGAINST_TAG}.{alias}"


@dataclass(frozen=True)
class ChampionRef:
    """A version that an alias points at.

    Args:
        digest: digest of the model's artefact, empty when the line did not register the version.
        uri: URI of its files.
        path: its files as a folder on this machine, None when they are elsewhere; `download` works for both.
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
    description: str = "",
    run_id: str | None = None,
    experiment: str = "embedline",
    artifact_root: str | None = None,
) -> int:
    """Register a model folder unchanged; MLflow keeps a copy.

    The same digest and the same files under the same name are one version: it is returned with `tags` and
    `description` set on it, and nothing is copied again. A version under an alias that promotions move keeps
    its own, and one that was judged keeps them when `tags` hold no verdict. An upload that a crash cut off is
    completed.

    Args:
        digest: digest of the model; with the same model, other exported files make another version.
        description: Markdown for MLflow's page of the version.
        run_id: MLflow id of the run that made the model.

    Returns:
        The version's number.

    Raises:
        InputError: MLflow does not accept the name.
        TrackingError: the server failed.

    Example:
        >>> digest, tags = read_artifact(folder).digest, {"verdict": "passed"}
        >>> register("support", folder, digest=digest, tags=tags, uri="http://localhost:5000")
        4
    """
    logging.getLogger("mlflow.store.model_registry").setLevel(logging.WARNING)
    files = file_tags(model_folder)
    identity = {DIGEST_TAG: digest, FILES_DIGEST_TAG: files[FILES_DIGEST_TAG]}
    with tracking_errors(uri), host_lock(uri, "register", name):
        opened = client(uri)
        _ensure_model(opened, name)
        known = _find_version(opened, name, identity)
        if known is not None:
            if not _keeps_its_tags(known, tags, read_aliases(opened, name)):
                _set_tags(opened, known, tags)
                if description:
                    opened.update_model_version(name, known.version, description[:_MAX_DESCRIPTION])
            return int(known.version)
        experiment_key = experiment_id(opened, uri, experiment, artifact_root)
        logged = _logged_model(opened, experiment_key, name, model_folder, identity, run_id)
        with as_global_store(uri):
            made = opened.create_model_version(
                name,
                f"models:/{logged.model_id}",
                run_id=run_id,
                tags={**tags, **files, **identity},
                description=description[:_MAX_DESCRIPTION] or None,
                model_id=logged.model_id,
            )
        return int(made.version)


def _keeps_its_tags(known: ModelVersion, tags: Mapping[str, str], aliases: Mapping[str, int]) -> bool:
    """Return whether a version that is registered again keeps its verdict, and what belongs to it.

    It does while it is deployed: under an alias that promotions move. Else a new verdict replaces the old
    one, and the lack of one replaces nothing.
    """
    deployed = {number for alias, number in aliases.items() if not alias_problem(alias)}
    if int(known.version) in deployed:
        return True
    unjudged = {None, NOT_JUDGED, THIRD_PARTY}
    return tags.get(VERDICT_TAG) in unjudged and known.tags.get(VERDICT_TAG) not in unjudged


def _set_tags(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Write a refusal first and a pass last, so that a version that is cut off never passes by mistake."""
    passed = tags.get(VERDICT_TAG) == PASSED
    for key, value in sorted(tags.items(), key=lambda item: (item[0] == VERDICT_TAG) == passed):
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, str(version.version), key, value)


def get_champion(name: str, alias: str = "champion", *, uri: str) -> ChampionRef | None:
    """Return the version under `alias`, or None when there is no such model or alias.

    Example:
        >>> champion = get_champion("support", uri="http://localhost:5000")
        >>> champion.version, champion.path
        (3, PosixPath('/srv/mlartifacts/1/models/m-5f/artifacts'))
    """
    with tracking_errors(uri):
        opened = client(uri)
        number = read_aliases(opened, name).get(alias)
        if number is None:
            return None
        version = opened.get_model_version(name, str(number))
        location = location_of(opened, version)
        tags = dict(version.tags)
        return ChampionRef(
            name, alias, number, tags.get(DIGEST_TAG, ""), location, local_path(location), tags
        )


def aliases(name: str, *, uri: str) -> dict[str, int]:
    """Return the aliases of a registered model with their versions; empty when there is no such model."""
    with tracking_errors(uri):
        return read_aliases(client(uri), name)


def version_of(name: str, identity: Mapping[str, str], *, uri: str) -> int | None:
    """Return the first version that has these tags, or None."""
    with tracking_errors(uri):
        version = _find_version(client(uri), name, identity)
        return None if version is None else int(version.version)


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


def find_version(client: MlflowClient, name: str, version: int, uri: str) -> ModelVersion:
    """Return one version with its tags.

    Raises:
        InputError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise InputError(f"{name} has no version {version}.", where=uri) from error
        raise


def _find_version(client: MlflowClient, name: str, identity: Mapping[str, str]) -> ModelVersion | None:
    conditions = [f"tags.`{key}` = {quoted(value)}" for key, value in identity.items()]
    condition = " and ".join([f"name = {quoted(name)}", *conditions])
    try:
        versions = client.search_model_versions(condition)
    except Exception as error:
        if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return min(versions, key=lambda version: int(version.version), default=None)


def _logged_model(
    client: MlflowClient,
    experiment: str,
    name: str,
    folder: Path,
    identity: Mapping[str, str],
    run_id: str | None,
) -> LoggedModel:
    """Return the uploaded files: of an earlier registration, completed if it was cut off, or new ones."""
    marks = {**identity, MODEL_TAG: name}
    condition = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in marks.items())
    uploads = client.search_logged_models([experiment], condition)
    ready = [model for model in uploads if model.status == "READY"]
    if ready:
        return ready[0]
    pending = [model for model in uploads if model.status == "PENDING"]
    logged = (
        pending[0]
        if pending
        else client.create_logged_model(
            experiment,
            name=f"model-{identity[DIGEST_TAG][:12]}",
            source_run_id=run_id,
            tags=marks,
        )
    )
    client.log_model_artifacts(logged.model_id, str(folder))
    if (copied := local_path(str(logged.artifact_location))) is not None:
        flush_tree(copied)
    return client.finalize_logged_model(logged.model_id, "READY")


def read_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Read the aliases of a registered model through an open client; empty when there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        model: Any = client.get_registered_model(name)
    except MlflowException as error:
        if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    return {alias: int(version) for alias, version in model.aliases.items()}

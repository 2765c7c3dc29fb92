"""Registered versions by train key: the digest of everything that decides a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.registry.server import client, error_code, quoted, tracking_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "embedline."
TRAIN_KEY = "train_key"


@dataclass(frozen=True)
class TrainedVersion:
    """A version with a train key; `values` are its `embedline.…` tags without the prefix."""

    name: str
    version: int
    values: dict[str, str]


def version_with_key(name: str, train_key: str, *, uri: str) -> int | None:
    """Return the newest version of `name` with this train key, with any verdict; None when there is none.

    Raises:
        TrackingError: the server failed.
    """
    version = _newest(name, f"tags.`{PREFIX}{TRAIN_KEY}` = {quoted(train_key)}", uri)
    return int(version.version) if version else None


def newest_trained(name: str, *, uri: str) -> TrainedVersion | None:
    """Return the newest version of `name` that has a train key; None when there is none.

    Raises:
        TrackingError: the server failed.
    """
    version = _newest(name, f"tags.`{PREFIX}{TRAIN_KEY}` != ''", uri)
    if version is None:
        return None
    values = {key.removeprefix(PREFIX): tag for key, tag in version.tags.items() if key.startswith(PREFIX)}
    return TrainedVersion(name, int(version.version), values)


def _newest(name: str, condition: str, uri: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    with tracking_errors(uri):
        try:
            versions = client(uri).search_model_versions(
                f"name = {quoted(name)} and {condition}", max_results=1, order_by=["version_number DESC"]
            )
        except MlflowException as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return versions[0] if versions else None

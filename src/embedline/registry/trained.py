"""Which registered version was made from what: versions found by their train key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.registry.server import client, error_code, quoted, reaching

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "embedline."
TRAIN_KEY = "train_key"


@dataclass(frozen=True)
class Trained:
    """A version that says what it was made from; `values` are its `embedline.…` tags without the prefix."""

    name: str
    version: int
    values: dict[str, str]


def version_with_key(name: str, train_key: str, *, uri: str) -> int | None:
    """The newest version of `name` with this train key, whatever its verdict; None when there is none.

    Raises:
        TrackingError: the server failed.
    """
    found = _newest(name, f"tags.`{PREFIX}{TRAIN_KEY}` = {quoted(train_key)}", uri)
    return int(found.version) if found else None


def newest_trained(name: str, *, uri: str) -> Trained | None:
    """The newest version of `name` that has a train key.

    Raises:
        TrackingError: the server failed.
    """
    found = _newest(name, f"tags.`{PREFIX}{TRAIN_KEY}` != ''", uri)
    if found is None:
        return None
    values = {key.removeprefix(PREFIX): tag for key, tag in found.tags.items() if key.startswith(PREFIX)}
    return Trained(name, int(found.version), values)


def _newest(name: str, condition: str, uri: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    with reaching(uri):
        try:
            found = client(uri).search_model_versions(
                f"name = {quoted(name)} and {condition}", max_results=1, order_by=["version_number DESC"]
            )
        except MlflowException as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found[0] if found else None

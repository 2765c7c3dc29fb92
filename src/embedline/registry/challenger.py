"""The alias `challenger`: the last candidate that passed the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedline.config.names import CHALLENGER
from embedline.registry.alias_state import point_alias
from embedline.registry.server import client, quoted, tracking_errors
from embedline.registry.versions import JUDGED_AT_TAG, PASSED, VERDICT_TAG, read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


def update_challenger(name: str, *, uri: str) -> int | None:
    """Point the alias at the last version that passed the gate, or remove it; return that version."""
    with tracking_errors(uri):
        opened = client(uri)
        while (version := last_passed_version(opened, name)) != read_aliases(opened, name).get(CHALLENGER):
            point_alias(opened, name, CHALLENGER, version)  # read again: another run may have registered one
        return version


def last_passed_version(client: MlflowClient, name: str) -> int | None:
    """Return the version that passed the gate last; None when there is none."""
    condition = f"name = {quoted(name)} and tags.`{VERDICT_TAG}` = {quoted(PASSED)}"
    passed = [
        (int(version.tags.get(JUDGED_AT_TAG, 0)), int(version.version))
        for version in client.search_model_versions(condition)
    ]
    return max(passed)[1] if passed else None

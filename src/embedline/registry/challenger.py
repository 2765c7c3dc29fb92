"""The alias `challenger`: the last candidate that passed the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedline.config.names import CHALLENGER
from embedline.registry.alias_state import point
from embedline.registry.server import client, quoted, reaching
from embedline.registry.versions import JUDGED_AT_TAG, PASSED, VERDICT_TAG, read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


def name_challenger(name: str, *, uri: str) -> int | None:
    """Point the alias at the last version whose verdict is a pass, or remove it; returns that version."""
    with reaching(uri):
        opened = client(uri)
        while (version := last_passed(opened, name)) != read_aliases(opened, name).get(CHALLENGER):
            point(opened, name, CHALLENGER, version)  # and look again: another run may have registered one
        return version


def last_passed(client: MlflowClient, name: str) -> int | None:
    condition = f"name = {quoted(name)} and tags.`{VERDICT_TAG}` = {quoted(PASSED)}"
    found = [
        (int(version.tags.get(JUDGED_AT_TAG, 0)), int(version.version))
        for version in client.search_model_versions(condition)
    ]
    return max(found)[1] if found else None

"""Overview of a registered model: its aliases, and how they differ from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedline.config.names import CHALLENGER
from embedline.registry.alias_state import read_alias_state, reconcile_command, require_names, version_text
from embedline.registry.challenger import last_passed_version
from embedline.registry.ledger import Ledger
from embedline.registry.server import client, tracking_errors
from embedline.registry.versions import INDEX_TAG, VERDICT_TAG, find_version, read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class AliasedVersion:
    """A version that an alias points at."""

    version: int
    verdict: str
    index_version: str
    run_id: str


@dataclass(frozen=True)
class Overview:
    """A model's aliases; `drift` has a sentence for each difference that `embedline reconcile` repairs."""

    name: str
    uri: str
    aliases: dict[str, AliasedVersion]
    drift: list[str] = field(default_factory=list)


def overview(name: str, alias: str = "champion", *, uri: str) -> Overview:
    """Read a registered model without changing anything.

    Raises:
        TrackingError: the server failed.

    Example:
        >>> overview("support", uri="http://localhost:5000").aliases["champion"].version
        3
    """
    require_names(name, alias)
    with tracking_errors(uri):
        opened = client(uri)
        state = read_alias_state(opened, Ledger.find(uri, name), name, alias)
        drift = [state.drift] if state.drift else []
        numbers = read_aliases(opened, name)
        challenger, last = numbers.get(CHALLENGER), last_passed_version(opened, name)
        if challenger != last:
            drift.append(
                f"{name}: {CHALLENGER} is {version_text(challenger)}, and the last version that passed the "
                f"gate is {version_text(last)}: {reconcile_command(name)} corrects it."
            )
        aliased = {
            each: _aliased_version(opened, name, number, uri) for each, number in sorted(numbers.items())
        }
        return Overview(name, uri, aliased, drift)


def _aliased_version(client: MlflowClient, name: str, number: int, uri: str) -> AliasedVersion:
    tags = find_version(client, name, number, uri).tags
    return AliasedVersion(
        number, tags.get(VERDICT_TAG, ""), tags.get(INDEX_TAG, ""), tags.get("embedline.run_id", "")
    )

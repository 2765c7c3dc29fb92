"""What a registered model's aliases stand for, and whether anything is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedline.config.names import CHALLENGER
from embedline.registry.alias_state import fix_for, read_standing, require_names, words
from embedline.registry.challenger import last_passed
from embedline.registry.ledger import Ledger
from embedline.registry.server import client, reaching
from embedline.registry.versions import INDEX_TAG, VERDICT_TAG, find_version, read_aliases


@dataclass(frozen=True)
class Pointed:
    """A version under an alias."""

    version: int
    verdict: str
    index_version: str
    run_id: str


@dataclass(frozen=True)
class Overview:
    """A model's aliases, and what `embedline reconcile` would do or ask about."""

    name: str
    uri: str
    aliases: dict[str, Pointed]
    drift: list[str] = field(default_factory=list)


def overview(name: str, alias: str = "champion", *, uri: str) -> Overview:
    """Read a registered model; nothing is changed.

    Raises:
        TrackingError: the server failed.
    """
    require_names(name, alias)
    with reaching(uri):
        opened = client(uri)
        standing = read_standing(opened, Ledger.find(uri, name), name, alias)
        drift = [standing.drift] if standing.drift else []
        now = read_aliases(opened, name)
        if (last := last_passed(opened, name)) != now.get(CHALLENGER):
            drift.append(
                f"{name}: {CHALLENGER} is {words(now.get(CHALLENGER))}, and the last that passed the gate is "
                f"{words(last)}: {fix_for(name)} puts it right."
            )
        pointed = {}
        for each, number in sorted(now.items()):
            tags = find_version(opened, name, number, uri).tags
            pointed[each] = Pointed(
                number, tags.get(VERDICT_TAG, ""), tags.get(INDEX_TAG, ""), tags.get("embedline.run_id", "")
            )
        return Overview(name, uri, pointed, drift)

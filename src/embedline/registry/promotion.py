"""Moving an alias to another version, and back: checks, then the ledger, then the alias."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedline.errors import ConflictError, InputError, RefusedError
from embedline.registry.alias_state import Standing, claim, follow, require_names, settled, winner, words
from embedline.registry.files import verify_files
from embedline.registry.ledger import Entry, Generation, Ledger
from embedline.registry.server import client, reaching
from embedline.registry.versions import (
    INDEX_TAG,
    JUDGED_AGAINST_TAG,
    OUTSIDE,
    PASSED,
    REASONS_TAG,
    SCORES_TAG,
    VERDICT_TAG,
    find_version,
    read_aliases,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NOTHING = "none"


@dataclass(frozen=True)
class Promotion:
    """Where an alias points after a promotion or rollback.

    Args:
        version: what the alias points at.
        previous: what it pointed at before; the version of `previous_<alias>`, None when there is none.
        moved: False when the version was the champion already.
        reindex: whether vectors made by the previous model must not be mixed with this one's.
        text: the same as sentences.
    """

    name: str
    alias: str
    version: int
    previous: int | None
    moved: bool
    reindex: bool
    text: str


def promote(
    name: str,
    version: int,
    alias: str = "champion",
    *,
    reason: str,
    by: str,
    uri: str,
    expect: str | None = None,
) -> Promotion:
    """Point `alias` at a version that passed the gate, and `previous_<alias>` at what it pointed at before.

    Args:
        expect: the version that the alias must point at now, or `none`. By default the one that the gate
            compared this version with; for a version without such a record, whatever is there at the start.

    Raises:
        InputError: there is no such version, or the alias is none that can be moved.
        RefusedError: the gate did not pass.
        ConflictError: the champion is not the expected one, somebody else was faster (both say who moved it),
            or the alias was moved by hand.
        StepError: the files are not those that were registered.
        TrackingError: the server failed.
    """
    require_names(name, alias)
    with reaching(uri):
        opened = client(uri)
        found = find_version(opened, name, version, uri)
        ledger = Ledger.open(uri, name)
        standing, _ = settled(opened, ledger, name, alias)
        if standing.pointed == version:
            text = f"{name} version {version} is already {alias}; nothing moved."
            return Promotion(name, alias, version, standing.previous, False, False, text)
        _require_expected(standing, version, expect or found.tags.get(JUDGED_AGAINST_TAG))
        require_passed(found)
        verify_files(opened, found, uri)
        entry = _entry("promote", alias, found, standing.pointed, by, reason)
        generation = claim(ledger, standing, entry)
        follow(opened, ledger, name, generation)
        return _moved(opened, generation, found, f"{name} version {version} is {alias}")


def rollback(
    name: str,
    alias: str = "champion",
    *,
    uri: str,
    by: str,
    reason: str = "rollback",
    expect: str | None = None,
) -> Promotion:
    """Swap `alias` and its predecessor; a second rollback swaps them back.

    A rollback that was cut off is completed, not followed by another.

    Args:
        expect: the version that the alias must point at now; whatever is there by default.

    Raises:
        InputError: nothing was promoted yet, there is no predecessor, or it was deleted.
        ConflictError, StepError, TrackingError: as for `promote`.
    """
    require_names(name, alias)
    with reaching(uri):
        opened = client(uri)
        if Ledger.find(uri, name) is None and alias not in read_aliases(opened, name):
            raise InputError(f"{name} has no {alias} to roll back.", where=uri)
        ledger = Ledger.open(uri, name)
        standing, completed = settled(opened, ledger, name, alias)
        generation = standing.newest
        if generation is None or generation.entry.previous is None:
            raise InputError(f"{name} has no previous {alias} to roll back to.", where=uri)
        if completed is None or completed.kind != "rollback":
            back = generation.entry.previous
            found = find_version(opened, name, back, uri)
            _require_expected(standing, back, expect)
            verify_files(opened, found, uri)
            entry = _entry("rollback", alias, found, standing.pointed, by, reason)
            generation = claim(ledger, standing, entry)
            follow(opened, ledger, name, generation)
        assert generation.entry.version is not None
        found = find_version(opened, name, generation.entry.version, uri)
        return _moved(opened, generation, found, f"{name} version {found.version} is {alias} again")


def history(name: str, *, uri: str) -> list[Generation]:
    """Every move of every alias of a model, oldest first."""
    with reaching(uri):
        ledger = Ledger.find(uri, name)
        return ledger.read() if ledger else []


def _require_expected(standing: Standing, version: int, expected: str | None) -> None:
    now = str(standing.pointed or NOTHING)
    if expected is None or expected == now:
        return
    so_far = f" {winner(standing.newest.entry)}" if standing.newest else f" is {words(standing.pointed)}"
    was = "nothing" if expected == NOTHING else f"version {expected}"
    raise ConflictError(
        f"{standing.name}: {standing.alias}{so_far}, but {words(version)} was to replace {was}.",
        fix=f"Run again to judge it against {words(standing.pointed)}, or say --expect {now} "
        "to replace that one all the same.",
    )


def require_passed(version: ModelVersion) -> None:
    verdict = version.tags.get(VERDICT_TAG)
    if verdict in {PASSED, OUTSIDE}:
        return
    why = version.tags.get(REASONS_TAG, "") if verdict else "It has no verdict: the line did not register it."
    raise RefusedError(
        f"the gate did not pass. {why}".strip(), where=f"{version.name} version {version.version}"
    )


def _entry(kind: Any, alias: str, version: ModelVersion, previous: int | None, by: str, reason: str) -> Entry:
    return Entry(
        kind=kind,
        alias=alias,
        version=int(version.version),
        previous=previous,
        by=by,
        reason=reason,
        verdict=version.tags.get(VERDICT_TAG, ""),
        scores=json.loads(version.tags.get(SCORES_TAG) or "{}"),
    )


def _moved(client: MlflowClient, generation: Generation, now: ModelVersion, head: str) -> Promotion:
    """What a move means for those who keep vectors."""
    previous = generation.entry.previous
    before = _tags_of(client, now.name, previous) if previous else None
    was = f" (was version {previous})" if previous else ""
    advice, reindex = "", before is not None
    if before is not None:
        mine, theirs = now.tags.get(INDEX_TAG), before.get(INDEX_TAG)
        reindex = mine is None or mine != theirs
        advice = (
            f" Vectors of version {previous} (index {theirs or 'unknown'}) must not be mixed with those of "
            f"version {now.version} (index {mine or 'unknown'}): build the index anew."
            if reindex
            else f" The index stays valid: both versions make the same vectors (index {mine})."
        )
    return Promotion(
        now.name, generation.entry.alias, int(now.version), previous, True, reindex, f"{head}{was}.{advice}"
    )


def _tags_of(client: MlflowClient, name: str, version: int) -> Mapping[str, str]:
    try:
        tags: Mapping[str, str] = find_version(client, name, version, "").tags
    except InputError:  # it was deleted; its vectors may still be about
        return {}
    return tags

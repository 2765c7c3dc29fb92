"""Promotion and rollback: check the version, write the ledger, then move the alias."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.errors import InputError, RefusedError
from embedline.registry.alias_state import (
    AliasMove,
    AliasState,
    PreemptedError,
    apply_generation,
    claim_generation,
    complete_unfinished,
    move_text,
    read_alias_state,
    require_names,
    version_text,
)
from embedline.registry.files import recorded_files, verify_files
from embedline.registry.ledger import Entry, Generation, Kind, Ledger
from embedline.registry.server import client, tracking_errors
from embedline.registry.versions import (
    INDEX_TAG,
    NOT_JUDGED,
    PASSED,
    REASONS_TAG,
    SCORES_TAG,
    THIRD_PARTY,
    VERDICT_TAG,
    find_version,
    judged_against_tag,
    read_aliases,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NOTHING = "none"


@dataclass(frozen=True)
class Promotion:
    """An alias after a promotion or rollback.

    Args:
        version: version that the alias points at.
        previous: version that it pointed at before, now under `previous_<alias>`; None when there is none.
        moved: False when the alias pointed at the version already.
        reindex: whether vectors of the previous model must not be mixed with those of this one.
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
    """Point `alias` at a version that the gate did not refuse, and `previous_<alias>` at the one before it.

    A version that was not judged moves, too: the line does not call this for one, a person may. The ledger's
    entry holds that verdict.

    Args:
        reason, by: reason and author of the move, for the ledger.
        expect: version that the alias must point at now, or `none`. By default the one that the gate compared
            this version with under this alias; without such a record, the alias's version at the start.

    Raises:
        InputError: there is no such version, or the alias cannot be moved.
        RefusedError: the gate did not pass.
        PreemptedError: the champion is not the expected one, another process was faster (both messages name
            the author of the move), or the alias was moved by hand.
        ConflictError: a version was deleted during its move, or the ledger was.
        StepError: the files are not those that were registered.
        TrackingError: the server failed.

    Example:
        >>> promotion = promote("support", 3, reason="release 7", by="ann", uri="http://localhost:5000")
        >>> promotion.version, promotion.previous, promotion.reindex
        (3, 2, True)
    """
    require_names(name, alias)
    with tracking_errors(uri):
        opened = client(uri)
        candidate = find_version(opened, name, version, uri)
        ledger = Ledger.open(uri, name)
        state, _ = complete_unfinished(opened, ledger, name, alias)
        if state.pointed == version:
            if recorded_files(candidate.tags):
                verify_files(opened, candidate, uri)
            text = f"{name} version {version} is already {alias}; nothing moved."
            return Promotion(name, alias, version, state.previous, False, False, text)
        _require_expected(state, version, expect or candidate.tags.get(judged_against_tag(alias)))
        require_not_refused(candidate)
        verify_files(opened, candidate, uri)
        entry = _entry("promote", alias, candidate, state.pointed, by, reason)
        try:
            generation = claim_generation(ledger, state, entry)
        except PreemptedError as error:
            if error.move.version != version:
                raise
            # Another process has just promoted this version: nothing is left to do.
            return promote(name, version, alias, reason=reason, by=by, uri=uri, expect=expect)
        apply_generation(opened, ledger, name, generation)
        unjudged = candidate.tags.get(VERDICT_TAG) == NOT_JUDGED
        note = " It was not judged by the gate." if unjudged else ""
        return _moved(opened, generation, candidate, f"{name} version {version} is {alias}", note)


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

    A rollback that was cut off is completed, not followed by another. An alias whose version was deleted
    (MLflow deletes the alias with it) goes back, too. A predecessor whose files were not recorded at
    registration (an older embedline, another program) returns unverified, which the text says.

    Args:
        expect: version that the alias must point at now; not checked by default.

    Raises:
        InputError: nothing was promoted yet, there is no predecessor, or it was deleted.
        ConflictError, StepError, TrackingError: as for `promote`.

    Example:
        >>> rollback("support", uri="http://localhost:5000", by="ann", reason="slow answers").version
        2
    """
    require_names(name, alias)
    with tracking_errors(uri):
        opened = client(uri)
        if Ledger.find(uri, name) is None and alias not in read_aliases(opened, name):
            raise InputError(f"{name} has no {alias} to roll back.", where=uri)
        ledger = Ledger.open(uri, name)
        try:
            state, completed = complete_unfinished(opened, ledger, name, alias)
        except PreemptedError:
            state, completed = read_alias_state(opened, ledger, name, alias), None
            if not _lost_its_version(opened, state):
                raise
        generation = state.newest
        if generation is None or generation.entry.previous is None:
            raise InputError(f"{name} has no previous {alias} to roll back to.", where=uri)
        if completed is None or completed.kind != "rollback":
            back = generation.entry.previous
            predecessor = find_version(opened, name, back, uri)
            _require_expected(state, back, expect)
            if recorded_files(predecessor.tags):
                verify_files(opened, predecessor, uri)
            entry = _entry("rollback", alias, predecessor, state.pointed, by, reason)
            generation = claim_generation(ledger, state, entry)
            apply_generation(opened, ledger, name, generation)
        assert generation.entry.version is not None
        restored = find_version(opened, name, generation.entry.version, uri)
        unverified = (
            "" if recorded_files(restored.tags) else " Its files have no recorded digests to compare."
        )
        head = f"{name} version {restored.version} is {alias} again"
        return _moved(opened, generation, restored, head, unverified)


def history(name: str, *, uri: str) -> list[Generation]:
    """Return every move of every alias of a model, oldest first."""
    with tracking_errors(uri):
        ledger = Ledger.find(uri, name)
        return ledger.read() if ledger else []


def _lost_its_version(client: MlflowClient, state: AliasState) -> bool:
    """Return whether an alias points at nothing because the version that it was moved to was deleted.

    A model that was created again since has other versions under the same numbers.
    """
    if state.newest is None or state.pointed is not None or state.recorded is None:
        return False
    try:
        find_version(client, state.name, state.recorded, "")
    except InputError:
        created: int = client.get_registered_model(state.name).creation_timestamp
        return created <= state.newest.entry.at
    return False


def _require_expected(state: AliasState, version: int, expected: str | None) -> None:
    now = str(state.pointed or NOTHING)
    if expected is None or expected == now:
        return
    if state.newest:
        last_move, move = move_text(state.newest.entry), AliasMove.of(state.newest.entry)
    else:
        last_move = f"is {version_text(state.pointed)}"
        move = AliasMove(state.alias, int(expected) if expected.isdigit() else None, state.pointed)
    replaced = "nothing" if expected == NOTHING else f"version {expected}"
    raise PreemptedError(
        f"{state.name}: {state.alias} {last_move}; {version_text(version)} was to replace {replaced}.",
        move,
        fix=f"Run again to compare it with {version_text(state.pointed)}, or give --expect {now} "
        "to replace that one anyway.",
    )


def require_not_refused(version: ModelVersion) -> None:
    """Refuse a version that the gate refused, or that was not registered by the line.

    Raises:
        RefusedError: the gate did not pass.
    """
    verdict = version.tags.get(VERDICT_TAG)
    if verdict in {PASSED, NOT_JUDGED, THIRD_PARTY}:
        return
    no_verdict = "It has no verdict: it was not registered by the line."
    reasons = version.tags.get(REASONS_TAG, "") if verdict else no_verdict
    raise RefusedError(
        f"the gate did not pass. {reasons}".strip(), where=f"{version.name} version {version.version}"
    )


def _entry(
    kind: Kind, alias: str, version: ModelVersion, previous: int | None, by: str, reason: str
) -> Entry:
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


def _moved(
    client: MlflowClient, generation: Generation, now: ModelVersion, head: str, note: str = ""
) -> Promotion:
    """Describe a finished move, and whether existing vector indexes stay valid."""
    previous = generation.entry.previous
    before = _tags_of(client, now.name, previous) if previous else None
    was = f" (was version {previous})" if previous else ""
    advice, reindex = "", before is not None
    if before is not None:
        index, old_index = now.tags.get(INDEX_TAG), before.get(INDEX_TAG)
        reindex = index is None or index != old_index
        advice = (
            f" Vectors of version {previous} (index {old_index or 'unknown'}) must not be mixed with those "
            f"of version {now.version} (index {index or 'unknown'}): rebuild the index."
            if reindex
            else f" The index stays valid: both versions make the same vectors (index {index})."
        )
    return Promotion(
        now.name,
        generation.entry.alias,
        int(now.version),
        previous,
        True,
        reindex,
        f"{head}{was}.{note}{advice}",
    )


def _tags_of(client: MlflowClient, name: str, version: int) -> Mapping[str, str]:
    try:
        tags: Mapping[str, str] = find_version(client, name, version, "").tags
    except InputError:  # the version was deleted; its vectors may still be in use
        return {}
    return tags

"""Repair of a model's aliases after a crash or a change in the UI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedline.config.names import CHALLENGER
from embedline.errors import ConflictError
from embedline.registry.alias_state import (
    UNKNOWN_AUTHOR,
    AliasState,
    apply_generation,
    claim_generation,
    point_alias,
    read_alias_state,
    require_names,
    version_text,
)
from embedline.registry.challenger import last_passed_version
from embedline.registry.files import recorded_files, verify_files
from embedline.registry.ledger import Entry, Generation, Kind, Ledger
from embedline.registry.server import client, quoted, tracking_errors
from embedline.registry.versions import MODEL_TAG, find_version, read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


@dataclass(frozen=True)
class Reconciled:
    """Result of a reconciliation; both lists are empty when ledger and aliases agreed.

    Args:
        done: one sentence for each action.
        undecided: one sentence for each alias that was moved by hand and neither accepted nor restored.
    """

    name: str
    done: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def reconcile(
    name: str,
    alias: str = "champion",
    *,
    uri: str,
    by: str,
    accept: bool = False,
    restore: bool = False,
    grace_s: float = 3600.0,
) -> Reconciled:
    """Make ledger and aliases agree; a second call finds nothing to do.

    A move that was cut off is completed; when its version was deleted meanwhile it is undone. An alias that
    was moved by hand stays where it is until `accept` (the ledger records it) or `restore` (it is moved back)
    is given. Uploads that no version refers to are removed.

    Args:
        by: author of the moves, for the ledger.
        grace_s: an upload without a version is removed when it is older than this (seconds).

    Raises:
        InputError: promotions do not move this alias.
        ConflictError: another process moved the alias at the same time.
        StepError: the files of the version to restore are not those that were registered.
        TrackingError: the server failed.

    Example:
        >>> reconcile("support", uri="http://localhost:5000", by="ann").done
        ['challenger is version 3, the last that passed the gate.']
    """
    require_names(name, alias)
    result = Reconciled(name)
    with tracking_errors(uri):
        opened = client(uri)
        ledger = Ledger.find(uri, name)
        state = read_alias_state(opened, ledger, name, alias)
        while state.unfinished and ledger is not None:
            result.done.append(_complete(opened, ledger, state, by))
            state = read_alias_state(opened, ledger, name, alias)
        if state.moved_by_hand and (accept or restore):
            result.done.append(_decide(opened, Ledger.open(uri, name), state, by, accept, uri))
        elif state.moved_by_hand:
            result.undecided.append(state.drift)
        elif state.previous_is_wrong and state.newest is not None:
            before = state.newest.entry.previous
            if point_alias(opened, name, f"previous_{alias}", before):
                result.done.append(f"previous_{alias} is {version_text(before)} again.")
        if (last := last_passed_version(opened, name)) != read_aliases(opened, name).get(CHALLENGER):
            point_alias(opened, name, CHALLENGER, last)
            result.done.append(f"{CHALLENGER} is {version_text(last)}, the last that passed the gate.")
        result.done.extend(_abandoned_uploads(opened, name, grace_s))
    return result


def _complete(client: MlflowClient, ledger: Ledger, state: AliasState, by: str) -> str:
    """Finish the newest move, or undo it when its version was deleted."""
    newest = state.newest
    assert newest is not None
    entry = newest.entry
    try:
        apply_generation(client, ledger, state.name, newest)
    except ConflictError:
        undo = _undo(client, ledger, state.name, newest, by)
        apply_generation(client, ledger, state.name, claim_generation(ledger, state, undo))
        deleted, restored = version_text(entry.version), version_text(undo.version)
        return f"Undone: {deleted} was deleted; {entry.alias} is {restored} again."
    begun = f"begun by {entry.by or UNKNOWN_AUTHOR} at {entry.when}"
    return f"Completed: {entry.kind} of {entry.alias} to {version_text(entry.version)}, {begun}."


def _undo(client: MlflowClient, ledger: Ledger, name: str, broken: Generation, by: str) -> Entry:
    """Return the entry that goes back to the last move whose version still exists, or to nothing."""
    existing = {int(version.version) for version in client.search_model_versions(f"name = {quoted(name)}")}
    alias, reason = broken.entry.alias, f"{version_text(broken.entry.version)} was deleted"
    for generation in reversed(ledger.read()[: broken.number]):
        entry = generation.entry
        if entry.alias == alias and entry.version in existing:
            before = entry.previous if entry.previous in existing else None
            return Entry(alias, entry.version, before, reason, kind="undo", by=by)
    return Entry(alias, None, None, reason, kind="undo", by=by)


def _decide(client: MlflowClient, ledger: Ledger, state: AliasState, by: str, accept: bool, uri: str) -> str:
    """Record an alias that was moved by hand in the ledger, or move it back."""
    newest = state.newest
    kind: Kind = "accept" if accept else "restore"
    if accept:
        version, previous = state.pointed, state.recorded
        reason = f"moved by other means from {version_text(state.recorded)}"
    else:
        version, previous = state.recorded, newest.entry.previous if newest else None
        found = find_version(client, state.name, version, uri) if version else None
        if found is not None and recorded_files(found.tags):
            verify_files(client, found, uri)
        reason = f"moved by other means to {version_text(state.pointed)}"
    entry = Entry(kind=kind, alias=state.alias, version=version, previous=previous, by=by, reason=reason)
    apply_generation(client, ledger, state.name, claim_generation(ledger, state, entry))
    return f"{'Accepted' if accept else 'Restored'}: {state.alias} is {version_text(version)} ({reason})."


def _abandoned_uploads(client: MlflowClient, name: str, grace_s: float) -> list[str]:
    """Remove files that no version refers to, left by a registration that was cut off and never completed."""
    before = time.time() - grace_s
    used = {version.source for version in client.search_model_versions(f"name = {quoted(name)}")}
    removed = []
    for model in list(_uploads(client, name)):
        source = f"models:/{model.model_id}"
        if source in used or model.last_updated_timestamp / 1000 > before:
            continue
        # The model may have been renamed since, or the files registered under another name.
        if not client.search_model_versions(f"source_path = {quoted(source)}", max_results=1):
            client.delete_logged_model(model.model_id)
            removed.append(f"Removed: the upload {model.name}, which no version refers to.")
    return removed


def _uploads(client: MlflowClient, name: str) -> Iterator[LoggedModel]:
    """Yield everything that was uploaded for a model, page by page."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    condition, token = f"tags.`{MODEL_TAG}` = {quoted(name)}", None
    while True:
        page = client.search_logged_models(experiments, condition, page_token=token)
        yield from page
        if not (token := page.token):
            return

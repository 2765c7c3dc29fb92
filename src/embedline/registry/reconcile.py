"""After a crash or a hand in the UI: complete or undo what was begun, and say what a person must decide."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedline.config.names import CHALLENGER
from embedline.errors import ConflictError
from embedline.registry.alias_state import Standing, claim, follow, point, read_standing, require_names, words
from embedline.registry.challenger import last_passed
from embedline.registry.ledger import Entry, Generation, Kind, Ledger
from embedline.registry.server import client, quoted, reaching
from embedline.registry.versions import MODEL_TAG, read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


@dataclass(frozen=True)
class Reconciled:
    """What was done, and what is left for a person; both empty when all is well.

    Args:
        done: one sentence an action.
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
    was moved by hand stays where it is until a person says `accept` (the ledger takes it over) or `restore`
    (it goes back). Uploads that no version refers to are removed.

    Args:
        grace_s: an upload this old (seconds) without a version is taken for abandoned.

    Raises:
        InputError: the alias is none that promotions move.
        ConflictError: somebody else moved the alias at the same time.
        TrackingError: the server failed.
    """
    require_names(name, alias)
    result = Reconciled(name)
    with reaching(uri):
        opened = client(uri)
        ledger = Ledger.find(uri, name)
        standing = read_standing(opened, ledger, name, alias)
        while standing.unfinished and ledger is not None:
            result.done.append(_complete(opened, ledger, standing, by))
            standing = read_standing(opened, ledger, name, alias)
        if standing.moved_by_hand and (accept or restore):
            result.done.append(_decide(opened, Ledger.open(uri, name), standing, by, accept))
        elif standing.moved_by_hand:
            result.undecided.append(standing.drift)
        elif standing.previous_is_wrong and standing.newest is not None:
            before = standing.newest.entry.previous
            if point(opened, name, f"previous_{alias}", before):
                result.done.append(f"previous_{alias} is {words(before)} again.")
        if (last := last_passed(opened, name)) != read_aliases(opened, name).get(CHALLENGER):
            point(opened, name, CHALLENGER, last)
            result.done.append(f"{CHALLENGER} is {words(last)}, the last that passed the gate.")
        result.done.extend(_abandoned_uploads(opened, name, grace_s))
    return result


def _complete(client: MlflowClient, ledger: Ledger, standing: Standing, by: str) -> str:
    """Finish the newest move, or take it back when its version is gone."""
    newest = standing.newest
    assert newest is not None
    entry = newest.entry
    try:
        follow(client, ledger, standing.name, newest)
    except ConflictError:
        undo = _undo(client, ledger, standing.name, newest, by)
        follow(client, ledger, standing.name, claim(ledger, standing, undo))
        return f"Undone: {words(entry.version)} was deleted; {entry.alias} is {words(undo.version)} again."
    begun = f"begun by {entry.by or 'somebody'} at {entry.when}"
    return f"Completed: {entry.kind} of {entry.alias} to {words(entry.version)}, {begun}."


def _undo(client: MlflowClient, ledger: Ledger, name: str, broken: Generation, by: str) -> Entry:
    """Back to the last move whose version still exists; to nothing when there is none."""
    there = {int(version.version) for version in client.search_model_versions(f"name = {quoted(name)}")}
    alias, why = broken.entry.alias, f"{words(broken.entry.version)} was deleted"
    for generation in reversed(ledger.read()[: broken.number]):
        entry = generation.entry
        if entry.alias == alias and entry.version in there:
            before = entry.previous if entry.previous in there else None
            return Entry(alias, entry.version, before, why, kind="undo", by=by)
    return Entry(alias, None, None, why, kind="undo", by=by)


def _decide(client: MlflowClient, ledger: Ledger, standing: Standing, by: str, accept: bool) -> str:
    newest = standing.newest
    kind: Kind = "accept" if accept else "restore"
    if accept:
        version, previous = standing.pointed, standing.recorded
        reason = f"moved by other means from {words(standing.recorded)}"
    else:
        version, previous = standing.recorded, newest.entry.previous if newest else None
        reason = f"moved by other means to {words(standing.pointed)}"
    entry = Entry(kind=kind, alias=standing.alias, version=version, previous=previous, by=by, reason=reason)
    follow(client, ledger, standing.name, claim(ledger, standing, entry))
    return f"{'Accepted' if accept else 'Restored'}: {standing.alias} is {words(version)} ({reason})."


def _abandoned_uploads(client: MlflowClient, name: str, grace_s: float) -> list[str]:
    """Files that no version refers to, left by a registration that was cut off and never taken up again."""
    before = time.time() - grace_s
    used = {version.source for version in client.search_model_versions(f"name = {quoted(name)}")}
    removed = []
    for model in list(_uploads(client, name)):
        source = f"models:/{model.model_id}"
        if source in used or model.last_updated_timestamp / 1000 > before:
            continue
        # The model may have got another name since, or somebody registered the files under one.
        if not client.search_model_versions(f"source_path = {quoted(source)}", max_results=1):
            client.delete_logged_model(model.model_id)
            removed.append(f"Removed: the upload {model.name}, which no version refers to.")
    return removed


def _uploads(client: MlflowClient, name: str) -> Iterator[LoggedModel]:
    """Everything that was uploaded for a model, page by page."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    condition, page = f"tags.`{MODEL_TAG}` = {quoted(name)}", None
    while True:
        some = client.search_logged_models(experiments, condition, page_token=page)
        yield from some
        if not (page := some.token):
            return

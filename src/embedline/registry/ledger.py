"""Ledger of promotions: one MLflow run for each registered model, one parameter for each generation.

MLflow has no compare-and-set on aliases. Writing a new parameter is atomic, so the parameter `{name}.gen.{n}`
decides which of several concurrent promotions is the n-th. An entry is also the audit record (author, reason,
old and new version, scores, verdict) and is written before the alias moves.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from embedline.errors import ConflictError
from embedline.redaction import without_secrets
from embedline.registry.server import artifacts_beside, client, error_code, experiment_id, host_lock, quoted
from embedline.registry.spool import MAX_PARAM_VALUE, clean_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "embedline-ledger"
_TAG = "embedline.ledger"
_MAX_REASON = 1000
_MAX_BY = 200
_MAX_NAME = 200  # of a model in a parameter's key of at most 250 characters: the number after it must fit
Kind = Literal["promote", "rollback", "accept", "restore", "undo"]


@dataclass(frozen=True)
class Entry:
    """One move of an alias, from `previous` to `version`.

    Args:
        kind: promote and rollback; accept (an alias moved by other means was kept), restore (it was moved
            back), undo (a move that could not be finished was reversed).
        version, previous: None when the alias points at nothing, or pointed at nothing.
        by, reason: author and reason of the move.
        verdict, scores: of the version, as they were registered.
        at: milliseconds since the epoch.
        token: distinguishes two entries with the same content.
    """

    alias: str
    version: int | None
    previous: int | None
    reason: str
    kind: Kind = "promote"
    by: str = ""
    verdict: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    at: int = field(default_factory=lambda: int(time.time() * 1000))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def as_text(self) -> str:
        """Return the entry as JSON that fits into a parameter's value, if needed without the last scores."""
        reason, by = without_secrets(self.reason)[:_MAX_REASON], without_secrets(self.by)[:_MAX_BY]
        kept = replace(self, reason=reason, by=by)
        while len(text := json.dumps(asdict(kept), ensure_ascii=False)) > MAX_PARAM_VALUE and kept.scores:
            kept = replace(kept, scores=dict(list(kept.scores.items())[:-1]))
        return text

    @property
    def when(self) -> str:
        """Time of the move, in words."""
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at / 1000))


@dataclass(frozen=True)
class Generation:
    """An entry with its number; `done` once the aliases have been moved accordingly."""

    number: int
    entry: Entry
    done: bool


class Ledger:
    """Promotions of one registered model, oldest first."""

    def __init__(self, client: MlflowClient, name: str, run: str) -> None:
        self._client, self._name, self._run = client, name, run

    @classmethod
    def find(cls, uri: str, name: str) -> Ledger | None:
        """Open the ledger of a model for reading; None when nothing was ever promoted."""
        opened = client(uri)
        run = _ledger_run(opened, name)
        if run is None and (shared := opened.get_experiment_by_name(EXPERIMENT)):
            runs = _search(opened, shared.experiment_id, name)  # of an embedline without `_choose_run`
            run = str(runs[0].info.run_id) if runs else None
        return None if run is None else cls(opened, name, run)

    @classmethod
    def open(cls, uri: str, name: str) -> Ledger:
        """Open the ledger of a model for writing; create it when it is new."""
        opened = client(uri)
        return cls(opened, name, _ledger_run(opened, name) or _choose_run(opened, uri, name))

    def read(self) -> list[Generation]:
        """Return every generation, oldest first.

        Raises:
            ConflictError: the run that holds the ledger was deleted.
        """
        run = self._client.get_run(self._run)
        if run.info.lifecycle_stage != "active":
            fix = f"Restore it: mlflow runs restore --run-id {self._run}"
            raise ConflictError("the run with its promotions was deleted.", where=self._name, fix=fix)
        generations: list[Generation] = []
        while (text := run.data.params.get(self._key(len(generations)))) is not None:
            number = len(generations)
            done = self._done_key(number) in run.data.params
            generations.append(Generation(number, Entry(**json.loads(text)), done))
        return generations

    def append(self, number: int, entry: Entry) -> bool:
        """Write generation `number`; return False when another process has written it."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_param(self._run, self._key(number), entry.as_text())
        except MlflowException as error:
            if error_code(error) != "INVALID_PARAMETER_VALUE":
                raise
            written = next((g.entry for g in self.read() if g.number == number), None)
            if written is None:
                raise
            return written.token == entry.token
        return True

    def mark_done(self, number: int) -> None:
        """Record that the aliases were moved to the state of generation `number`."""
        self._client.log_param(self._run, self._done_key(number), "yes")

    def _key(self, number: int) -> str:
        return clean_key(f"{self._name[:_MAX_NAME]}.gen.{number}")

    def _done_key(self, number: int) -> str:
        return f"{self._key(number)}.done"


def newest_of(generations: list[Generation], alias: str) -> Generation | None:
    """Return the last generation that moved `alias`; None when there is none."""
    return next((g for g in reversed(generations) if g.entry.alias == alias), None)


def _ledger_run(client: MlflowClient, name: str) -> str | None:
    experiment = client.get_experiment_by_name(_pointer_name(name))
    return None if experiment is None else str(experiment.tags[_TAG])


def _choose_run(client: MlflowClient, uri: str, name: str) -> str:
    """Create the run that holds a model's ledger; return the id of the one that all hosts use.

    Two hosts can each create a run at the first promotion. Names of experiments are unique, so the first host
    that creates the experiment `_pointer_name(name)` decides: it holds only the id of its run.
    """
    from mlflow.exceptions import MlflowException

    shared = experiment_id(client, uri, EXPERIMENT)
    with host_lock(uri, _TAG, name):
        runs = _search(client, shared, name)
        if not runs:
            runs = [client.create_run(shared, tags={_TAG: name}, run_name=f"ledger of {name}")]
            client.set_terminated(runs[0].info.run_id)
        run = str(runs[0].info.run_id)
        note = f"Names the run that holds the promotions of {name}. Without it they are lost: do not delete."
        try:
            client.create_experiment(
                _pointer_name(name),
                artifact_location=artifacts_beside(uri),
                tags={_TAG: run, "mlflow.note.content": note},
            )
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
    chosen = _ledger_run(client, name)
    assert chosen is not None
    return chosen


def _search(client: MlflowClient, experiment: str, name: str) -> list[Run]:
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    condition = f"tags.`{_TAG}` = {quoted(name)}"
    return list(client.search_runs([experiment], condition, max_results=1, order_by=order))


def _pointer_name(name: str) -> str:
    """Return the name of the experiment that holds the id of a model's ledger."""
    return f"{EXPERIMENT}: {name}"

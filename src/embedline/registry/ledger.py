"""The ledger of promotions: one MLflow run a registered model, one parameter a generation.

MLflow has no compare-and-set on aliases. Writing a parameter that nobody has written yet is atomic, so the
parameter `{name}.gen.{n}` decides which of several concurrent promotions is the n-th. An entry is the audit
record, too: who, why, from, to, scores, verdict; it is written before an alias moves.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from embedline.errors import ConflictError
from embedline.registry.server import artifacts_beside, client, error_code, experiment_id, host_lock, quoted
from embedline.registry.spool import MAX_PARAM_VALUE, clean_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "embedline-ledger"
_TAG = "embedline.ledger"
_MAX_REASON = 1000
_MAX_WHO = 200
_MAX_NAME = 200  # of a model in a parameter's key, which has room for 250: the number behind it must stay
Kind = Literal["promote", "rollback", "accept", "restore", "undo"]


@dataclass(frozen=True)
class Entry:
    """The alias pointed at `previous` and points at `version` from here on.

    Args:
        kind: promote and rollback; accept (an alias moved by other means was taken over), restore (it was put
            back), undo (a move that could not be finished was taken back).
        version, previous: None when the alias points at nothing, or pointed at nothing.
        by, reason: who and why.
        verdict, scores: of the version, as they were registered.
        at: milliseconds since the epoch.
        token: tells two entries with the same content apart.
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
        """JSON within the length of a parameter's value; the last scores go first when it is too long."""
        kept = replace(self, reason=self.reason[:_MAX_REASON], by=self.by[:_MAX_WHO])
        while len(text := json.dumps(asdict(kept), ensure_ascii=False)) > MAX_PARAM_VALUE and kept.scores:
            kept = replace(kept, scores=dict(list(kept.scores.items())[:-1]))
        return text

    @property
    def when(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.at / 1000))


@dataclass(frozen=True)
class Generation:
    """An entry in its place; `done` once the aliases have been moved accordingly."""

    number: int
    entry: Entry
    done: bool


class Ledger:
    """The promotions of one registered model, oldest first."""

    def __init__(self, client: MlflowClient, name: str, run: str) -> None:
        self._client, self._name, self._run = client, name, run

    @classmethod
    def find(cls, uri: str, name: str) -> Ledger | None:
        """The ledger of a model to read, None when nothing was ever promoted."""
        opened = client(uri)
        run = _elected(opened, name)
        if run is None and (shared := opened.get_experiment_by_name(EXPERIMENT)):
            found = _search(opened, shared.experiment_id, name)  # begun before there were elections
            run = str(found[0].info.run_id) if found else None
        return None if run is None else cls(opened, name, run)

    @classmethod
    def open(cls, uri: str, name: str) -> Ledger:
        """The ledger of a model to write to, made when it is new."""
        opened = client(uri)
        return cls(opened, name, _elected(opened, name) or _elect(opened, uri, name))

    def read(self) -> list[Generation]:
        """Every generation.

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
        """Writes generation `number`; False when another process has written it."""
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
        self._client.log_param(self._run, self._done_key(number), "yes")

    def _key(self, number: int) -> str:
        return clean_key(f"{self._name[:_MAX_NAME]}.gen.{number}")

    def _done_key(self, number: int) -> str:
        return f"{self._key(number)}.done"


def newest_of(generations: list[Generation], alias: str) -> Generation | None:
    """The last generation that moved `alias`."""
    return next((g for g in reversed(generations) if g.entry.alias == alias), None)


def _elected(client: MlflowClient, name: str) -> str | None:
    found = client.get_experiment_by_name(_seat(name))
    return None if found is None else str(found.tags[_TAG])


def _elect(client: MlflowClient, uri: str, name: str) -> str:
    """Of two hosts that each made a run for the first promotion one must win: experiments' names are unique.

    That experiment holds nothing but the id of the run, written when it is created.
    """
    from mlflow.exceptions import MlflowException

    shared = experiment_id(client, uri, EXPERIMENT)
    with host_lock(uri, _TAG, name):
        found = _search(client, shared, name)
        if not found:
            made = client.create_run(shared, tags={_TAG: name}, run_name=f"ledger of {name}")
            client.set_terminated(made.info.run_id)
        run = str(found[0].info.run_id if found else made.info.run_id)
        note = f"Names the run that holds the promotions of {name}. Without it they are lost: do not delete."
        try:
            client.create_experiment(
                _seat(name),
                artifact_location=artifacts_beside(uri),
                tags={_TAG: run, "mlflow.note.content": note},
            )
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
    elected = _elected(client, name)
    assert elected is not None
    return elected


def _search(client: MlflowClient, experiment: str, name: str) -> list[Run]:
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    condition = f"tags.`{_TAG}` = {quoted(name)}"
    return list(client.search_runs([experiment], condition, max_results=1, order_by=order))


def _seat(name: str) -> str:
    return f"{EXPERIMENT}: {name}"

"""The ledger of promotions: one MLflow run a registered model, one parameter a generation.

MLflow has no compare-and-set on aliases. Writing a parameter that nobody has written yet is atomic, so the
parameter `{name}.gen.{n}` decides which of several concurrent promotions is the n-th.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from embedline.registry.server import client, error_code, experiment_id, host_lock, quoted
from embedline.registry.spool import clean_key

if TYPE_CHECKING:
    from mlflow.entities import Run

EXPERIMENT = "embedline-ledger"
_TAG = "embedline.ledger"
_MAX_REASON = 2000


@dataclass(frozen=True)
class Entry:
    """The alias pointed at `previous` and points at `version` from here on."""

    alias: str
    version: int
    previous: int | None
    reason: str
    at: int = field(default_factory=lambda: int(time.time() * 1000))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Generation:
    """An entry in its place; `done` once the aliases have been moved accordingly."""

    number: int
    entry: Entry
    done: bool


class Ledger:
    """The promotions of one registered model, oldest first."""

    def __init__(self, uri: str, name: str) -> None:
        self._name = name
        self._client = client(uri)
        self._experiment = experiment_id(self._client, uri, EXPERIMENT)
        self._run = self._find_or_create(uri)

    def read(self) -> list[Generation]:
        params = self._client.get_run(self._run).data.params
        generations: list[Generation] = []
        while (text := params.get(self._key(len(generations)))) is not None:
            number = len(generations)
            generations.append(
                Generation(number, Entry(**json.loads(text)), self._done_key(number) in params)
            )
        return generations

    def newest(self, alias: str) -> Generation | None:
        return next((g for g in reversed(self.read()) if g.entry.alias == alias), None)

    def append(self, number: int, entry: Entry) -> bool:
        """Writes generation `number`; False when another process has written it."""
        from mlflow.exceptions import MlflowException

        value = json.dumps({**asdict(entry), "reason": entry.reason[:_MAX_REASON]}, ensure_ascii=False)
        try:
            self._client.log_param(self._run, self._key(number), value)
        except MlflowException as error:
            if error_code(error) == "INVALID_PARAMETER_VALUE":
                return False
            raise
        return True

    def mark_done(self, number: int) -> None:
        self._client.log_param(self._run, self._done_key(number), "yes")

    def _key(self, number: int) -> str:
        return clean_key(f"{self._name}.gen.{number}")

    def _done_key(self, number: int) -> str:
        return f"{self._key(number)}.done"

    def _find_or_create(self, uri: str) -> str:
        if found := self._search():
            return str(found[0].info.run_id)
        with host_lock(uri, _TAG, self._name):
            if not self._search():
                run = self._client.create_run(
                    self._experiment, tags={_TAG: self._name}, run_name=f"ledger of {self._name}"
                )
                self._client.set_terminated(run.info.run_id)
            return str(self._search()[0].info.run_id)  # two hosts may have made one each: the first counts

    def _search(self) -> list[Run]:
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        condition = f"tags.`{_TAG}` = {quoted(self._name)}"
        return list(self._client.search_runs([self._experiment], condition, max_results=1, order_by=order))

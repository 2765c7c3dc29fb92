"""Moving an alias to another version, and back: ledger first, then the alias, finished after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.errors import InputError
from embedline.registry.ledger import Entry, Generation, Ledger
from embedline.registry.server import client, error_code, reaching
from embedline.registry.versions import read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Promotion:
    """Where an alias points after a promotion or rollback.

    Args:
        version: what the alias points at.
        previous: what it pointed at before; the version of `previous_<alias>`, None when there is none.
        moved: False when the version was the champion already.
        text: the same as one sentence.
    """

    name: str
    alias: str
    version: int
    previous: int | None
    moved: bool
    text: str


def promote(name: str, version: int, alias: str = "champion", *, reason: str, uri: str) -> Promotion:
    """Point `alias` at `version`, and `previous_<alias>` at what it pointed at before.

    Raises:
        InputError: there is no such version.
        TrackingError: the server failed.
    """
    with reaching(uri):
        opened = client(uri)
        _check_version(opened, name, version, uri)
        ledger = Ledger(uri, name)
        while True:
            current, number = _settled(opened, ledger, name, alias)
            if current is not None and current.version == version:
                text = f"{name} version {version} is already {alias}; nothing moved."
                return Promotion(name, alias, version, current.previous, False, text)
            previous = current.version if current else None
            if _move(opened, ledger, name, number, Entry(alias, version, previous, reason)):
                was = f" (was version {previous})" if previous else ""
                return Promotion(
                    name, alias, version, previous, True, f"{name} version {version} is {alias}{was}."
                )


def rollback(name: str, alias: str = "champion", *, uri: str, reason: str = "rollback") -> Promotion:
    """Swap `alias` and its predecessor; a second rollback swaps them back.

    Raises:
        InputError: nothing was promoted yet, there is no predecessor, or it was deleted.
        TrackingError: the server failed.
    """
    with reaching(uri):
        opened = client(uri)
        if not read_aliases(opened, name):
            raise InputError(f"{name} has no {alias} to roll back.", where=uri)
        ledger = Ledger(uri, name)
        while True:
            current, number = _settled(opened, ledger, name, alias)
            if current is None or current.previous is None:
                raise InputError(f"{name} has no previous {alias} to roll back to.", where=uri)
            now, back = current.version, current.previous
            _check_version(opened, name, back, uri)
            if _move(opened, ledger, name, number, Entry(alias, back, now, reason)):
                return Promotion(
                    name, alias, back, now, True, f"{name} version {back} is {alias} again (was {now})."
                )


def history(name: str, *, uri: str) -> list[Entry]:
    """Every promotion and rollback of a model, oldest first."""
    with reaching(uri):
        return [generation.entry for generation in Ledger(uri, name).read()]


def _settled(client: MlflowClient, ledger: Ledger, name: str, alias: str) -> tuple[Entry | None, int]:
    """What `alias` points at by ledger and alias alike, and the number of the next generation.

    A move that was cut off between ledger and alias is finished. An alias that somebody has moved by other
    means since is taken into the ledger: what people see is what counts.
    """
    while True:
        generations = ledger.read()
        newest = next((g for g in reversed(generations) if g.entry.alias == alias), None)
        if newest is not None and not newest.done:
            _set_aliases(client, ledger, name, newest)
            continue
        pointed = read_aliases(client, name).get(alias)
        known = newest.entry.version if newest else None
        if pointed is None:
            return None, len(generations)
        if newest is not None and pointed == known:
            return newest.entry, len(generations)
        _move(client, ledger, name, len(generations), Entry(alias, pointed, known, "moved by other means"))


def _move(client: MlflowClient, ledger: Ledger, name: str, number: int, entry: Entry) -> bool:
    """Write generation `number` and follow it; False when another promotion came first."""
    if not ledger.append(number, entry):
        return False
    _set_aliases(client, ledger, name, Generation(number, entry, False))
    return True


def _set_aliases(client: MlflowClient, ledger: Ledger, name: str, target: Generation) -> None:
    """Make the aliases say what `target` says, then what anything newer in the ledger says."""
    while True:
        entry = target.entry
        _set_previous(client, name, f"previous_{entry.alias}", entry.previous)
        client.set_registered_model_alias(name, entry.alias, str(entry.version))
        newest = ledger.newest(entry.alias)
        ledger.mark_done(target.number)
        if newest is None or newest.number <= target.number:
            return
        target = newest


def _set_previous(client: MlflowClient, name: str, alias: str, version: int | None) -> None:
    from mlflow.exceptions import MlflowException

    try:
        if version is not None:
            client.set_registered_model_alias(name, alias, str(version))
        elif alias in read_aliases(client, name):
            client.delete_registered_model_alias(name, alias)
    except MlflowException as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":  # the predecessor was deleted: there is none
            raise


def _check_version(client: MlflowClient, name: str, version: int, uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(name, str(version))
    except MlflowException as error:
        if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise InputError(f"{name} has no version {version}.", where=uri) from error
        raise

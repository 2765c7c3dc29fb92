"""What the ledger says about a model's aliases beside what the registry says, and moving the latter."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.config.names import alias_problem, model_problem
from embedline.errors import ConflictError, InputError
from embedline.registry.ledger import Entry, Generation, Ledger, newest_of
from embedline.registry.server import error_code
from embedline.registry.versions import read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Standing:
    """One alias of a model, by ledger and by registry, read at one moment.

    Args:
        newest: the last generation that moved the alias; None when nothing did.
        pointed, previous: versions that the registry has under the alias and under `previous_<alias>`.
        count: generations so far, of all aliases: the number of the next one.
    """

    name: str
    alias: str
    newest: Generation | None
    pointed: int | None
    previous: int | None
    count: int

    @property
    def recorded(self) -> int | None:
        """The version that the ledger has under the alias."""
        return self.newest.entry.version if self.newest else None

    @property
    def unfinished(self) -> bool:
        """Whether a move was written down, and its process has not said (or not yet) that it is done."""
        return self.newest is not None and not self.newest.done

    @property
    def moved_by_hand(self) -> bool:
        """Whether the alias was moved by other means than promote and rollback."""
        return not self.unfinished and self.pointed != self.recorded

    @property
    def previous_is_wrong(self) -> bool:
        return self.newest is not None and self.newest.done and self.previous != self.newest.entry.previous

    @property
    def drift(self) -> str:
        """What is not as it should be, as sentences; empty when all is well."""
        name, known = f"{self.name}: {self.alias}", words(self.recorded)
        fix = fix_for(self.name)
        if self.unfinished:
            return f"{name} is being moved to {known}, or that was cut off: {fix} completes it."
        if self.moved_by_hand:
            return (
                f"{name} is {words(self.pointed)} and the ledger says {known}: it was moved by other means. "
                f"{fix} --accept keeps it, --restore puts it back."
            )
        if self.previous_is_wrong:
            assert self.newest is not None
            return (
                f"{name}: previous_{self.alias} is {words(self.previous)} and the ledger says "
                f"{words(self.newest.entry.previous)}: {fix} puts it right."
            )
        return ""


def require_names(name: str, alias: str) -> None:
    """Refuse what MLflow would refuse between the ledger's entry and the alias's move."""
    if problem := model_problem(name):
        raise InputError(f"{name!r} {problem}.")
    if problem := alias_problem(alias):
        raise InputError(f"{alias!r} {problem}.", where="--alias")


def fix_for(name: str) -> str:
    return f"embedline reconcile {shlex.quote(name)}"


def words(version: int | None) -> str:
    return f"version {version}" if version else "nothing"


def read_standing(client: MlflowClient, ledger: Ledger | None, name: str, alias: str) -> Standing:
    """Ledger, aliases, and the ledger again: a promotion in between would look like a move by hand."""
    while True:
        before = ledger.read() if ledger else []
        aliases = read_aliases(client, name)
        after = ledger.read() if ledger else []
        if before == after:
            newest = newest_of(after, alias)
            pointed, previous = aliases.get(alias), aliases.get(f"previous_{alias}")
            return Standing(name, alias, newest, pointed, previous, len(after))


def settled(client: MlflowClient, ledger: Ledger, name: str, alias: str) -> tuple[Standing, Entry | None]:
    """The standing with nothing unfinished, and the move that had to be completed for that.

    Raises:
        ConflictError: the alias was moved by hand; that is for a person to decide.
    """
    standing, completed = read_standing(client, ledger, name, alias), None
    while standing.unfinished:
        assert standing.newest is not None
        completed = standing.newest.entry
        follow(client, ledger, name, standing.newest)
        standing = read_standing(client, ledger, name, alias)
    if standing.moved_by_hand:
        raise ConflictError(standing.drift)
    return standing, completed


def claim(ledger: Ledger, standing: Standing, entry: Entry) -> Generation:
    """Write `entry` as the next generation after `standing`.

    A generation that moves another alias of the model is no rival: the next number is taken.

    Raises:
        ConflictError: somebody else has moved the alias; the message says who.
    """
    number = standing.count
    while not ledger.append(number, entry):
        generations = ledger.read()
        newest = newest_of(generations, entry.alias)
        if newest is not None and (standing.newest is None or newest.number > standing.newest.number):
            raise ConflictError(
                f"{standing.name}: {entry.alias} {winner(newest.entry)}; "
                f"{words(entry.version)} came second and nothing was moved.",
            )
        number = len(generations)
    return Generation(number, entry, False)


def winner(entry: Entry) -> str:
    """Who moved an alias where, when and why."""
    did = {"rollback": "was rolled back to", "undo": "went back to"}.get(entry.kind, "became")
    why = f" ({entry.reason})" if entry.reason else ""
    return f"{did} {words(entry.version)} by {entry.by or 'somebody'} at {entry.when}{why}"


def follow(client: MlflowClient, ledger: Ledger, name: str, target: Generation) -> None:
    """Make the aliases say what `target` says, then what anything newer in the ledger says.

    A process may sleep between its entry and its move while others promote. So it looks for something newer
    before the move, which then must not happen any more, and after it, which repairs what a sleep just in
    between has spoilt.

    Raises:
        ConflictError: the version was deleted.
    """
    while True:
        entry = target.entry
        before = newest_of(ledger.read(), entry.alias)
        if before is not None and before.number > target.number:
            ledger.mark_done(target.number)
            target = before
            continue
        point(client, name, f"previous_{entry.alias}", entry.previous)
        if not point(client, name, entry.alias, entry.version):
            raise ConflictError(
                f"{words(entry.version)} was deleted while it was becoming {entry.alias}.",
                where=name,
                fix=f"{fix_for(name)} takes that back.",
            )
        newest = newest_of(ledger.read(), entry.alias)
        ledger.mark_done(target.number)
        if newest is None or newest.number <= target.number:
            return
        target = newest


def point(client: MlflowClient, name: str, alias: str, version: int | None) -> bool:
    """Point an alias at a version, or remove it; False when there is no such version (any more)."""
    from mlflow.exceptions import MlflowException

    try:
        if version is not None:
            client.set_registered_model_alias(name, alias, str(version))
        elif alias in read_aliases(client, name):
            client.delete_registered_model_alias(name, alias)
    except MlflowException as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True

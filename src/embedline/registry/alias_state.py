"""Comparison of a model's aliases in the ledger with the registry's, and moves of the registry's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedline.config.names import alias_problem, model_problem
from embedline.errors import ConflictError, InputError
from embedline.quoting import command_line
from embedline.registry.ledger import Entry, Generation, Ledger, newest_of
from embedline.registry.server import error_code
from embedline.registry.versions import read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNKNOWN_AUTHOR = "an unknown user"


@dataclass(frozen=True)
class AliasMove:
    """A move of an alias by somebody else, as far as the registry knows it.

    Args:
        previous, version: where the alias pointed before and points now; None: at nothing.
        by, when, reason: from the ledger. All empty after a move by other means than embedline: MLflow
            records neither the author nor the time of an alias.
    """

    alias: str
    previous: int | None
    version: int | None
    by: str = ""
    when: str = ""
    reason: str = ""

    @classmethod
    def of(cls, entry: Entry) -> AliasMove:
        """Return the move that an entry of the ledger records."""
        by = entry.by or UNKNOWN_AUTHOR
        return cls(entry.alias, entry.previous, entry.version, by, entry.when, entry.reason)


class PreemptedError(ConflictError):
    """Conflict with another move of the same alias."""

    def __init__(self, what: str, move: AliasMove, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.move = move


@dataclass(frozen=True)
class AliasState:
    """One alias of a model in the ledger and in the registry, read at one moment.

    Args:
        newest: the last generation that moved the alias; None when there is none.
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
        """Version that the ledger has under the alias."""
        return self.newest.entry.version if self.newest else None

    @property
    def unfinished(self) -> bool:
        """Return whether the newest move is in the ledger and not yet marked as done."""
        return self.newest is not None and not self.newest.done

    @property
    def moved_by_hand(self) -> bool:
        """Return whether the alias was moved by something else than promote and rollback."""
        return not self.unfinished and self.pointed != self.recorded

    @property
    def previous_is_wrong(self) -> bool:
        """Return whether `previous_<alias>` differs from the ledger after a completed move."""
        return self.newest is not None and self.newest.done and self.previous != self.newest.entry.previous

    @property
    def drift(self) -> str:
        """Difference between registry and ledger in sentences, with the command to repair it; else empty."""
        name, recorded = f"{self.name}: {self.alias}", version_text(self.recorded)
        fix = reconcile_command(self.name)
        if self.unfinished:
            return f"{name} is being moved to {recorded}, or that was cut off: {fix} completes it."
        if self.moved_by_hand:
            return (
                f"{name} is {version_text(self.pointed)} in the registry and {recorded} in the ledger: "
                f"it was moved by other means, of which MLflow records neither user nor time. "
                f"{fix} --accept keeps it, --restore puts it back."
            )
        if self.previous_is_wrong:
            assert self.newest is not None
            return (
                f"{name}: previous_{self.alias} is {version_text(self.previous)} in the registry and "
                f"{version_text(self.newest.entry.previous)} in the ledger: {fix} corrects it."
            )
        return ""


def require_names(name: str, alias: str) -> None:
    """Refuse names that MLflow would refuse later, between the ledger's entry and the alias's move.

    Raises:
        InputError: MLflow does not accept the model's name or the alias, or the alias is reserved.
    """
    if problem := model_problem(name):
        raise InputError(f"{name!r} {problem}.")
    if problem := alias_problem(alias):
        raise InputError(f"{alias!r} {problem}.", where="--alias")


def reconcile_command(name: str) -> str:
    """Return the command that repairs the aliases of a model."""
    return command_line("embedline", "reconcile", name)


def version_text(version: int | None) -> str:
    """Return `version N`, or `nothing` for an alias that points at nothing."""
    return f"version {version}" if version else "nothing"


def read_alias_state(client: MlflowClient, ledger: Ledger | None, name: str, alias: str) -> AliasState:
    """Read ledger, aliases, and the ledger again: a promotion in between would look like a move by hand."""
    while True:
        before = ledger.read() if ledger else []
        aliases = read_aliases(client, name)
        after = ledger.read() if ledger else []
        if before == after:
            newest = newest_of(after, alias)
            pointed, previous = aliases.get(alias), aliases.get(f"previous_{alias}")
            return AliasState(name, alias, newest, pointed, previous, len(after))


def complete_unfinished(
    client: MlflowClient, ledger: Ledger, name: str, alias: str
) -> tuple[AliasState, Entry | None]:
    """Complete unfinished moves; return the alias's state then, and the last move that was completed.

    Raises:
        PreemptedError: the alias was moved by hand; the operator decides what happens to it.
        ConflictError: the version of an unfinished move was deleted.
    """
    state, completed = read_alias_state(client, ledger, name, alias), None
    while state.unfinished:
        assert state.newest is not None
        completed = state.newest.entry
        apply_generation(client, ledger, name, state.newest)
        state = read_alias_state(client, ledger, name, alias)
    if state.moved_by_hand:
        raise PreemptedError(state.drift, AliasMove(alias, state.recorded, state.pointed))
    return state, completed


def claim_generation(ledger: Ledger, state: AliasState, entry: Entry) -> Generation:
    """Write `entry` as the next generation after `state`.

    A generation that moves another alias of the model is no conflict: the next number is taken.

    Raises:
        PreemptedError: another process has moved the alias; the message names it.
    """
    number = state.count
    while not ledger.append(number, entry):
        generations = ledger.read()
        newest = newest_of(generations, entry.alias)
        if newest is not None and (state.newest is None or newest.number > state.newest.number):
            raise PreemptedError(
                f"{state.name}: {entry.alias} {move_text(newest.entry)}; "
                f"{version_text(entry.version)} came second and nothing was moved.",
                AliasMove.of(newest.entry),
            )
        number = len(generations)
    return Generation(number, entry, False)


def move_text(entry: Entry) -> str:
    """Describe a move: its target, author and time, the version before, and the reason."""
    verb = {"rollback": "was rolled back to", "undo": "went back to"}.get(entry.kind, "became")
    reason = f" ({entry.reason})" if entry.reason else ""
    return (
        f"{verb} {version_text(entry.version)} by {entry.by or UNKNOWN_AUTHOR} at {entry.when}, until then "
        f"{version_text(entry.previous)}{reason}"
    )


def apply_generation(client: MlflowClient, ledger: Ledger, name: str, target: Generation) -> None:
    """Move the aliases as `target` records, then as any newer generation in the ledger records.

    A process can be suspended between its entry and its move while other processes promote. So the ledger is
    read for a newer generation before the move, which must then be skipped, and after the move, which repairs
    the aliases if a newer move happened in between.

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
        point_alias(client, name, f"previous_{entry.alias}", entry.previous)
        if not point_alias(client, name, entry.alias, entry.version):
            raise ConflictError(
                f"{version_text(entry.version)} was deleted while it was becoming {entry.alias}.",
                where=name,
                fix=f"{reconcile_command(name)} takes that back.",
            )
        newest = newest_of(ledger.read(), entry.alias)
        ledger.mark_done(target.number)
        if newest is None or newest.number <= target.number:
            return
        target = newest


def point_alias(client: MlflowClient, name: str, alias: str, version: int | None) -> bool:
    """Point an alias at a version, or remove it; return False when the version does not exist (any more)."""
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

"""Conflict of a promotion with another move of the alias, as sentences in both languages of the report."""

from __future__ import annotations

from dataclasses import dataclass

from embedline.errors import ConflictError
from embedline.quoting import command_line
from embedline.registry.alias_state import AliasMove, PreemptedError, reconcile_command, version_text


@dataclass(frozen=True)
class Conflict:
    """The reason why a candidate that passed the gate did not become champion.

    Args:
        text, ru: the same in English and in Russian.
        move: of the alias, by somebody else; None when there was none (a version or the ledger was deleted).
    """

    text: str
    ru: str
    move: AliasMove | None = None


def conflict_of(error: ConflictError, name: str, version: int, alias: str) -> Conflict:
    """Describe the conflict that stopped the promotion of a version."""
    head = f"{name} version {version} passed the gate and did not become {alias}"
    head_ru = f"{name}, версия {version}: проверка пройдена, но алиас {alias} на неё не перенесён"
    if not isinstance(error, PreemptedError):
        return Conflict(f"{head}: {error}", f"{head_ru}: {error}")
    move = error.move
    places = f"from {version_text(move.previous)} to {version_text(move.version)}"
    places_ru = f"было: {move.previous or 'нет'}, стало: {move.version or 'нет'}"
    if not move.by:
        fix = reconcile_command(name)
        return Conflict(
            f"{head}: {alias} was moved by other means than embedline, {places}; MLflow records neither user "
            f"nor time. {fix} --accept keeps it, --restore puts it back.",
            f"{head_ru}: алиас перенесён в обход embedline ({places_ru}); кто и когда это сделал, MLflow не "
            f"хранит. {fix} --accept оставит его, --restore вернёт.",
            move,
        )
    fix = command_line("embedline", "promote", name, version, "--expect", move.version or "none")
    reason, reason_ru = (f" ({move.reason})", f", причина: {move.reason}") if move.reason else ("", "")
    return Conflict(
        f"{head}: {alias} was moved {places} by {move.by} at {move.when}{reason}. Run again to compare it "
        f"with {version_text(move.version)}, or replace that one anyway: {fix}",
        f"{head_ru}: алиас перенесён раньше ({places_ru}, автор: {move.by}, время: {move.when}{reason_ru}). "
        f"Запустите ещё раз, чтобы сравнить их, или всё равно замените чемпиона: {fix}",
        move,
    )

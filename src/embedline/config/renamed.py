"""Former names of settings, which are still read; `embedline plan` lists those in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MODES = {"enabled": "enforce", "disabled": "off", False: "off"}  # YAML reads a bare off as false


def renamed_gate(values: Any) -> Any:
    """Replace the old values of gate.mode, enabled and disabled, by the current ones."""
    if not isinstance(values, Mapping) or not isinstance(values.get("mode"), str | bool):
        return values
    return {**values, "mode": _MODES.get(values["mode"], values["mode"])}


def renamed_promote(values: Any) -> Any:
    """Replace the old setting promote.move_alias by promote.policy."""
    if not isinstance(values, Mapping) or not isinstance(values.get("move_alias"), bool):
        return values
    if "policy" in values:
        raise ValueError("move_alias is the old name of policy: leave it out")
    rest = {key: value for key, value in values.items() if key != "move_alias"}
    return {**rest, "policy": "auto" if values["move_alias"] else "manual"}


def old_spellings(values: Mapping[str, Any]) -> list[str]:
    """Return one line for each old name in a config as the user wrote it."""
    notes = []
    gate, promote = values.get("gate"), values.get("promote")
    if isinstance(gate, Mapping) and gate.get("mode") in {"enabled", "disabled"}:
        notes.append(f"gate.mode: {gate['mode']} is now called {_MODES[gate['mode']]}")
    if isinstance(promote, Mapping) and "move_alias" in promote:
        policy = "auto" if promote["move_alias"] else "manual"
        notes.append(f"promote.move_alias: {str(promote['move_alias']).lower()} is now policy: {policy}")
    return notes

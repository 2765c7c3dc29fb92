"""Old spellings of settings: still read, and named by `embedline plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MODES = {"enabled": "enforce", "disabled": "off", False: "off"}  # YAML reads a bare off as false


def renamed_gate(values: Any) -> Any:
    """gate.mode: enabled and disabled, as they are called now."""
    if not isinstance(values, Mapping) or not isinstance(values.get("mode"), str | bool):
        return values
    return {**values, "mode": _MODES.get(values["mode"], values["mode"])}


def renamed_promote(values: Any) -> Any:
    """promote.move_alias as promote.policy."""
    if not isinstance(values, Mapping) or not isinstance(values.get("move_alias"), bool):
        return values
    if "policy" in values:
        raise ValueError("move_alias is the old name of policy: leave it out")
    rest = {key: value for key, value in values.items() if key != "move_alias"}
    return {**rest, "policy": "auto" if values["move_alias"] else "manual"}


def old_spellings(values: Mapping[str, Any]) -> list[str]:
    """One line for each old spelling in a config as it was written."""
    notes = []
    gate, promote = values.get("gate"), values.get("promote")
    if isinstance(gate, Mapping) and gate.get("mode") in {"enabled", "disabled"}:
        notes.append(f"gate.mode: {gate['mode']} is now called {_MODES[gate['mode']]}")
    if isinstance(promote, Mapping) and "move_alias" in promote:
        policy = "auto" if promote["move_alias"] else "manual"
        notes.append(f"promote.move_alias: {str(promote['move_alias']).lower()} is now policy: {policy}")
    return notes

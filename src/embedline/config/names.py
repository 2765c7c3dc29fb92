"""Names in the model registry: what MLflow takes, and what has a meaning there already."""

from __future__ import annotations

import posixpath
import re

CHALLENGER = "challenger"  # the last candidate that passed the gate: moves by itself
PREVIOUS = "previous_"  # before an alias: what that pointed at before
_MAX_ALIAS, _MAX_MODEL = 255, 256


def alias_problem(alias: str) -> str:
    """Why `alias` cannot be promoted to, as half a sentence; empty when it can."""
    if not re.fullmatch(r"[\w-]+", alias) or len(PREVIOUS + alias) > _MAX_ALIAS:
        return "is no alias: write letters, digits, _ and -"
    if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE):
        return "is a name that MLflow keeps for itself"
    if alias == CHALLENGER or alias.startswith(PREVIOUS):
        return "is an alias that promotions move by themselves"
    return ""


def model_problem(name: str) -> str:
    """Why no registered model can be called `name`, as half a sentence; empty when one can."""
    if name.strip() != name or not name or len(name) > _MAX_MODEL:
        return (
            f"is no name for a registered model: 1 to {_MAX_MODEL} characters, none of them blank at the ends"
        )
    if found := re.search(r"[/:']|[\x00-\x1f]", name):
        return f"holds {found[0]!r}, which a registered model's name cannot have"
    if name == "." or posixpath.normpath(name) != name or name == "..":
        return "is no name for a registered model"
    return ""

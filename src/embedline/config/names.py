"""Names in the model registry: those that MLflow accepts, and the reserved ones."""

from __future__ import annotations

import posixpath
import re

CHAMPION = "champion"  # the alias that promotions move by default
CHALLENGER = "challenger"  # alias of the last candidate that passed the gate, moved automatically
PREVIOUS = "previous_"  # prefix of the alias for the version that another alias pointed at before
_MAX_ALIAS, _MAX_MODEL = 255, 256


def alias_problem(alias: str) -> str:
    """Return why promotions cannot move `alias`, as half a sentence; empty when they can."""
    if not re.fullmatch(r"[\w-]+", alias) or len(PREVIOUS + alias) > _MAX_ALIAS:
        return "is not an alias: write letters, digits, _ and -"
    if alias.lower() == "latest" or re.fullmatch(r"v\d+", alias, re.IGNORECASE):
        return "is a name that MLflow reserves"
    if alias == CHALLENGER or alias.startswith(PREVIOUS):
        return "is an alias that promotions move automatically"
    return ""


def model_problem(name: str) -> str:
    """Return why a registered model cannot have this name, as half a sentence; empty when it can."""
    if name.strip() != name or not name or len(name) > _MAX_MODEL:
        return (
            f"is not a name for a registered model: write 1 to {_MAX_MODEL} characters without spaces at the "
            "ends"
        )
    if match := re.search(r"[/:']|[\x00-\x1f]", name):
        return f"contains {match[0]!r}, which a registered model's name cannot contain"
    if name == "." or posixpath.normpath(name) != name or name == "..":
        return "is not a name for a registered model"
    return ""

"""Names of runs, data, models, aliases and experiments: those that folders and MLflow accept."""

from __future__ import annotations

import posixpath
import re

CHAMPION = "champion"  # the alias that promotions move by default
CHALLENGER = "challenger"  # alias of the last candidate that passed the gate, moved automatically
PREVIOUS = "previous_"  # prefix of the alias for the version that another alias pointed at before
MAX_NAME = 200  # bytes in UTF-8: a folder's name has room for 255, a key of MLflow for 250 characters
MAX_PRESET_NAME = 120  # characters; a run's name has the time behind it
_MAX_ALIAS, _MAX_MODEL, _MAX_EXPERIMENT = 255, 256, 500


def name_problem(name: str) -> str:
    """Return why a run, source or set cannot have this name, as half a sentence; empty when it can.

    >>> name_problem("вопросы")
    ''
    >>> name_problem("я" * 150)
    'has 300 bytes in UTF-8, where a name has at most 200 (a Cyrillic letter has 2)'
    """
    if (size := len(name.encode(errors="surrogatepass"))) > MAX_NAME:
        return f"has {size} bytes in UTF-8, where a name has at most {MAX_NAME} (a Cyrillic letter has 2)"
    return _form_problem(name)


def _form_problem(name: str) -> str:
    if not name.strip() or {".", ".."} & set(name.split("/")):
        return "is not a name"
    if match := re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", name):
        return f"contains {match[0]!r}, which a name cannot contain"
    return ""


def experiment_problem(name: str) -> str:
    """Return why an experiment of MLflow cannot have this name, as half a sentence; empty when it can."""
    if len(name) > _MAX_EXPERIMENT:
        return f"has {len(name)} characters, where MLflow takes at most {_MAX_EXPERIMENT}"
    return _form_problem(name)


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

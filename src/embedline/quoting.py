"""Quoting: paths and names in addresses and commands, so that their reader finds the same value again."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

# What SQLAlchemy, MLflow and masks of passwords read as syntax; other characters stay readable.
_SYNTAX = re.compile(r"[%?#@\x00-\x1f\x7f]")
_MAX_NAME = 255  # bytes, of all usual file systems
_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)")


def sqlite_uri(path: Path) -> str:
    """Return the address of a sqlite database, as SQLAlchemy reads it.

    An address with quoted characters names the driver, too: MLflow creates the folder of a `sqlite:///`
    address under its quoted name, beside the true one.
    """
    text = str(path)
    quoted = _SYNTAX.sub(lambda match: quote(match[0]), text)
    return f"sqlite:///{text}" if quoted == text else f"sqlite+pysqlite:///{quoted}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a sqlite address; None for a server, another database or one in memory."""
    match = _SQLITE.match(uri)
    return Path(unquote(match[1])) if match else None


def file_uri(path: Path) -> str:
    """Return the file address of an absolute path."""
    return path.as_uri()


def file_path(uri: str) -> Path | None:
    """Return the path of a file address, or of a path that MLflow keeps as an address; None for others."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) else Path(unquote(uri))


def command_line(*words: object) -> str:
    """Return a command to paste into a shell; a relative path that begins with a dash stays a path."""
    return shlex.join(
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words
    )


def path_problem(path: Path) -> str:
    """Return why a path cannot be handed on, as half a sentence; empty when it can.

    JSON files, databases and terminals hold text without control characters, and kfp replaces its own marks
    wherever it meets them.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if control := re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text):
        return f"has a name with a control character ({control[0]!r})"
    if "{{$" in text:
        return "has a name with {{$, which kfp replaces"
    if any(len(part.encode()) > _MAX_NAME for part in path.parts):
        return f"has a name of more than {_MAX_NAME} bytes"
    return ""


def home_expanded(path: str | Path) -> Path:
    """Replace a leading ~ as a shell does: the name of an unknown user, or without a home folder, stays."""
    return Path(os.path.expanduser(path))

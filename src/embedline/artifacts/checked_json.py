"""JSON files with a checksum of their own content: a damaged one is noticed, whatever the damage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from embedline.artifacts.durable import write_json

_CHECKSUM = "checksum"


def write_checked_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object together with its checksum."""
    plain = json.loads(json.dumps(values, ensure_ascii=False))  # as a reader gets it
    write_json(path, {**plain, _CHECKSUM: _checksum(plain)})


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read what `write_checked_json` wrote, without the checksum; files of earlier releases have none.

    Raises:
        ValueError: the file is no JSON object, or not the one that was written.
        OSError: it cannot be read.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    expected = values.pop(_CHECKSUM, None)
    if expected is not None and _checksum(values) != expected:
        raise ValueError("its content does not match its checksum")
    return values


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

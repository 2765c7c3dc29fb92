"""JSON lines: one object a line, ended by a line feed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of our own. Not with `str.splitlines`, which also splits at U+0085 and U+2028."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]

"""Markdown for the pipelines UI; names in it come from files and rows, so they are hostile."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_MARKS = re.compile(r"([\\`*\[\]|~])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
CELL_CHARS = 200


def cell(text: object) -> str:
    """A name as plain words within a line or a table's cell: no markup, no line break, no endless length."""
    words = " ".join(str(text).split())
    short = words if len(words) <= CELL_CHARS else f"{words[:CELL_CHARS]}…"
    return _MARKS.sub(r"\\\1", html.escape(short, quote=False))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of plain words; `head` is ours and stands as it is."""
    lines = [head, ["---"] * len(head), *(map(cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(text: str, limit: int) -> str:
    """`text` within `limit` bytes and without HTML, whatever a step let through."""
    safe = _TAG.sub("&lt;", text)
    if len(safe.encode()) <= limit:
        return safe
    note = "\n\n… cut here: the whole of it is in run.json.\n"
    kept = safe.encode()[: limit - len(note.encode())].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1 or None].rstrip() + note

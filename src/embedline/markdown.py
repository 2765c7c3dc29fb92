"""Markdown for the pipelines UI. Names in it come from files and rows: they are treated as hostile."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([\\`*\[\]|~])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
CELL_CHARS = 200


def cell(text: object, chars: int = CELL_CHARS) -> str:
    """Return a name as plain text for a line or a cell: no markup, one line, at most `chars` characters."""
    words = " ".join(str(text).split())
    short = words if len(words) <= chars else f"{words[:chars]}…"
    return _MARKS.sub(r"\\\1", html.escape(short, quote=False))


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, align: str = "", escape: bool = True
) -> str:
    """Return a Markdown table; `head` is ours and is not escaped.

    Args:
        align: a letter for each column, l (left) or r (right); all left when empty.
        escape: show cells as plain text (`cell`); False for cells that are Markdown already.
    """
    lines = [" | ".join(map(cell if escape else str, row)) for row in rows]
    rules = ["---:" if side == "r" else "---" for side in align or "l" * len(head)]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'|'.join(rules)}|", *(f"| {line} |" for line in lines)])


def shown(text: str, limit: int) -> str:
    """Return `text` without HTML, cut at `limit` bytes."""
    safe = _TAG.sub("&lt;", text)
    if len(safe.encode()) <= limit:
        return safe
    note = "\n\n… cut here: the whole of it is in run.json.\n"
    kept = safe.encode()[: limit - len(note.encode())].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1 or None].rstrip() + note

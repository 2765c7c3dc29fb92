"""The texts that `embed`, `index` and `search` are given."""

from __future__ import annotations

import sys
from pathlib import Path

from embedline.cli.shared import note
from embedline.encoding import decode_text


def read_corpus(path: Path) -> tuple[list[str], list[str]]:
    """Read the ids and the texts (with titles) of passages; notes on the files go to standard error."""
    from embedline.data.passages import read_passages
    from embedline.data.tally import Tally

    tally = Tally()
    passages = read_passages(path, tally)
    for line in tally.notes():
        note(f"{path}: {line}")
    return [passage.id for passage in passages], [passage.titled for passage in passages]


def standard_input() -> list[str]:
    """Read the lines of standard input."""
    from embedline.data.passages import text_rows

    return text_rows(decode_text(sys.stdin.buffer.read(), "standard input"))

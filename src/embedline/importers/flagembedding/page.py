"""Print FlagEmbedding's flags as a page: `python -m embedline.importers.flagembedding.page`."""

from __future__ import annotations

import sys

from embedline.importers.flagembedding import values
from embedline.importers.flagembedding.flags import PARTS, REST

_HEAD = """\
# FlagEmbedding's flags

    embedline init NAME --from-flagembedding train.sh      # or the command line itself, in quotes

writes a preset that trains what `FlagEmbedding.finetune.embedder` (1.4.2) would train with these flags: the
supervised stage alone, on the negatives that the data brings. A flag without a key is listed in the preset
with the reason given here. Where a flag is absent, FlagEmbedding's default is written.
This page is made by `python -m embedline.importers.flagembedding.page`.
"""


def markdown() -> str:
    """The table as the documentation shows it."""
    lines = [_HEAD]
    for title, rows in PARTS.items():
        lines += [f"## {title}", "", "| flag | preset key | |", "|---|---|---|"]
        for row in rows:
            note = row.note
            if row.default is not None:
                said = row.default if not isinstance(row.default, list) else " ".join(row.default)
                note = "; ".join(filter(None, [note, f"{said} when absent"]))
            lines.append(
                f"| `--{row.name}` | {', '.join(f'`{key}`' for key in row.keys) or 'none'} | {note} |"
            )
        lines.append("")
    lines += [
        "## Without effect here",
        "",
        f"Each is {REST}: {', '.join(f'`{n}`' for n in values.OTHER)}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())

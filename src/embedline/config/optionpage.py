"""Which settings do not go together, as a page of documentation: `python -m embedline.config.optionpage`."""

from __future__ import annotations

import sys

from embedline.config.refusals import REFUSALS

_HEAD = """\
# Options that do not go together

Poolings, heads, objectives, Matryoshka dims, prompts and precisions combine freely. What follows is all that
validation refuses, naming the setting, before anything is spent; what is merely unwise is a note of
`embedline plan`. This page is made by `python -m embedline.config.optionpage`.

| refused | why |
|---|---|
"""


def markdown() -> str:
    """The page."""
    return _HEAD + "".join(f"| {refusal.name} | {refusal.reason} |\n" for refusal in REFUSALS)


if __name__ == "__main__":
    sys.stdout.write(markdown())

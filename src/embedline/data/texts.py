"""Reader of plain texts as passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from embedline.data.lines import ZERO_BYTE, Line, shorten
from embedline.encoding import other_encoding, wide_encoding, wrong_encoding

PASSAGE_CHARS = 1400
SUFFIXES = (".txt", ".md")

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")


def read_text_file(path: Path) -> Iterator[Line]:
    """Read passages (`title`, `text`) from a .txt or .md file.

    Paragraphs (blocks between blank lines) are joined up to `PASSAGE_CHARS`; a Markdown heading begins a
    new passage. The title is the first heading of the file, else its name.

    Raises:
        InputError: it is in another known encoding than UTF-8.
    """
    raw = path.read_bytes()
    if encoding := wide_encoding(raw):
        raise wrong_encoding(encoding, f"{path}:1", path.name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding := other_encoding(raw.split(b"\n")):
            raise wrong_encoding(encoding, f"{path}:{line}", path.name) from error
        yield Line(str(path), line, None, "invalid UTF-8", shorten(raw[:800].decode("utf-8", "replace")))
        return
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        yield Line(str(path), line, None, ZERO_BYTE, shorten(text.splitlines()[line - 1]))
        return
    lines = text.splitlines()
    markdown = path.suffix.lower() == ".md"
    headings = (_HEADING.match(line) for line in lines) if markdown else iter(())
    title = next((found.group(1) for found in headings if found), path.stem)
    for number, passage in _passages(lines, markdown):
        yield Line(str(path), number, {"title": title, "text": passage})


def _passages(lines: list[str], markdown: bool) -> Iterator[tuple[int, str]]:
    first, joined = 0, ""
    for number, block in _blocks(lines):
        new_section = markdown and _HEADING.match(block) is not None
        if joined and (new_section or len(joined) + len(block) + 2 > PASSAGE_CHARS):
            yield first, joined
            joined = ""
        if not joined:
            first, joined = number, block
        else:
            joined = f"{joined}\n\n{block}"
        if len(joined) > PASSAGE_CHARS:
            *whole, joined = _pieces(joined)
            for piece in whole:
                yield first, piece
    if joined:
        yield first, joined


def _blocks(lines: list[str]) -> Iterator[tuple[int, str]]:
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), "\n".join(block)
            block = []


def _pieces(text: str) -> list[str]:
    """Cut a block that is longer than a passage between sentences; within one only where it is too long."""
    pieces = [""]
    for sentence in _SENTENCE_END.split(text):
        for start in range(0, len(sentence), PASSAGE_CHARS):
            part = sentence[start : start + PASSAGE_CHARS]
            if pieces[-1] and len(pieces[-1]) + len(part) + 1 > PASSAGE_CHARS:
                pieces.append(part)
            else:
                pieces[-1] = f"{pieces[-1]} {part}".strip()
    return pieces

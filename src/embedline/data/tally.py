"""What was read of a source: rows by file, rows that span several lines, files that were skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from embedline.data.lines import Line

_SHOWN, _KEPT = 20, 1000  # files named in a note, and in the artefact's metadata


@dataclass
class Tally:
    """Counts of the rows of a source, kept while they are read.

    Args:
        folder: the folder that the source is; None for a file.
        files: rows by file, in the order of reading; filled with the files of a folder beforehand.
        skipped: files of the folder that are not read → the reason.
        rows: rows read, malformed ones included.
        lines: lines of the files that these rows span.
        joined: rows that span several lines (CSV: a quoted value holds line ends).
        first_joined: the position of the first of them (file:first–last line).
        quoted: rows of a TSV file with a value in quotes, which TSV keeps.
    """

    folder: Path | None = None
    files: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    lines: int = 0
    joined: int = 0
    first_joined: str = ""
    quoted: int = 0

    def counted(self, lines: Iterable[Line]) -> Iterator[Line]:
        """Yield the rows, counted."""
        for line in lines:
            self.files[line.file] = self.files.get(line.file, 0) + 1
            self.rows += 1
            self.lines += line.lines
            if line.lines > 1:
                self.joined += 1
                self.first_joined = (
                    self.first_joined or f"{line.file}:{line.line}–{line.line + line.lines - 1}"
                )
            self.quoted += line.file.lower().endswith(".tsv") and _has_quoted(line)
            yield line

    def notes(self) -> list[str]:
        """Return what the user should know: one sentence for each thing that the counts alone do not show."""
        found = []
        if self.joined:
            found.append(
                f"{self.rows} rows from {self.lines} lines: {self.joined} rows span several lines, because a "
                f"quoted value holds line ends (the first: {self.first_joined}); "
                "an unpaired quote joins rows, too"
            )
        if self.quoted:
            found.append(
                f"{self.quoted} rows have a value in quotes, which belong to the text: TSV has no quoting"
            )
        if len(self.files) > 1 or self.skipped:
            rows = {file: f"{count} rows" for file, count in self.files.items()}
            found.append(f"{len(rows)} files read: {self._listed(rows)}")
        if self.skipped:
            found.append(f"{len(self.skipped)} files skipped: {self._listed(self.skipped)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the counts and the files, at most 1,000 of each kind, as JSON values."""
        files = {self._name(file): rows for file, rows in islice(self.files.items(), _KEPT)}
        skipped = {self._name(file): reason for file, reason in islice(self.skipped.items(), _KEPT)}
        return {"lines": self.lines, "joined": self.joined, "files": files, "skipped": skipped}

    def _listed(self, files: dict[str, str]) -> str:
        shown = [f"{self._name(file)} ({what})" for file, what in islice(files.items(), _SHOWN)]
        more = len(files) - len(shown)
        return ", ".join([*shown, *([f"and {more} more"] if more else [])])

    def _name(self, file: str) -> str:
        """Return a file's path below the folder."""
        path = Path(file)
        if self.folder is None or self.folder not in path.parents:
            return path.name
        return str(path.relative_to(self.folder))


def _has_quoted(line: Line) -> bool:
    values = (line.values or {}).values()
    return any(len(text) > 1 and text[0] == text[-1] == '"' for text in values)

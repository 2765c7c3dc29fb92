"""The tracker of a step: a local spool of JSON lines, which the registry room replays to a server.

A machine without mlflow and a tracking server that is down are the same case: the spool keeps everything.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedline.redaction import without_secrets

SPOOL = "spool.jsonl"


class Tracker:
    """The writer of one step's parameters, metrics and tags to `<folder>/spool.jsonl`, each once.

    Line forms: `{"type": "param"|"tag", "key", "value"}` and
    `{"type": "metric", "key", "value", "step", "at"}` (`at` in milliseconds since the epoch).
    A retried step opens the same spool and skips what the first attempt wrote, so a replay never meets a
    parameter twice, or a metric twice at one step.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / SPOOL
        self._seen = {_identity(line) for line in read_spool(self.path)}
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """End a line that a crash cut off, so that the next one does not continue it."""
        if self.path.is_file() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def params(self, values: Mapping[str, Any]) -> None:
        """Append parameters; the first value of a key is kept."""
        self._append(_texts("param", values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Append tags; references to artefacts and fingerprints of datasets are tags too."""
        self._append(_texts("tag", values))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Append metrics of a step; values that are not finite are left out: servers refuse them."""
        at = int(time.time() * 1000)
        self._append(
            [
                {"type": "metric", "key": key, "value": float(value), "step": int(step), "at": at}
                for key, value in values.items()
                if math.isfinite(value)
            ]
        )

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Append the lines that are new, with one write: a training logs some twenty metrics at once."""
        new = {identity: line for line in lines if (identity := _identity(line)) not in self._seen}
        if not new:
            return
        self._seen.update(new)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in new.values())
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def read_spool(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a spool; a last line that a crash cut off is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _texts(kind: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of parameters or tags, which every user of the tracking server can read."""
    return [{"type": kind, "key": key, "value": without_secrets(str(value))} for key, value in values.items()]


def _identity(line: dict[str, Any]) -> tuple[str, str, int]:
    return line["type"], line["key"], line.get("step", 0)

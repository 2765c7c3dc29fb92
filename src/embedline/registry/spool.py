"""Unsent part of a step's spool, in batches that a tracking server accepts."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from embedline.artifacts.durable import put_in_place

SENT = "spool.sent"
# Limits of one log_batch call: https://mlflow.org/docs/latest/rest-api.html#log-batch
MAX_LINES = 1000
MAX_PARAMS = MAX_TAGS = 100
MAX_BYTES = 150_000  # a request is at most 1 MB, and JSON writes a Cyrillic letter's 2 bytes in 6
MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000


@dataclass(frozen=True)
class MetricValue:
    """One value of a metric; `timestamp` in milliseconds since the epoch."""

    key: str
    value: float
    step: int
    timestamp: int


@dataclass(frozen=True)
class Batch:
    """Lines of a spool that are sent together; `end` is the byte offset after the last of them."""

    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[MetricValue]
    end: int


@dataclass(frozen=True)
class Sent:
    """Progress of sending a spool.

    Args:
        run: MLflow id of the run that it is sent to.
        offset: bytes sent.
        sending: whether a batch is under way.
    """

    run: str = ""
    offset: int = 0
    sending: bool = False

    @staticmethod
    def read(folder: Path) -> Sent:
        """Read the progress of the spool in `folder`; nothing sent when there is no record."""
        try:
            return Sent(**json.loads((folder / SENT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Sent()

    def write(self, folder: Path) -> None:
        """Replace the file in one move."""
        draft = folder / f".{SENT}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        put_in_place(draft, folder / SENT)


def batches(path: Path, offset: int) -> Iterator[Batch]:
    """Yield the complete lines after `offset`; a last line without a line break is left for the next time."""
    batch, size = Batch({}, {}, [], offset), 0
    with path.open("rb") as file:
        file.seek(offset)
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            if _is_full(batch, size + len(raw)):
                yield batch
                batch, size = Batch({}, {}, [], batch.end), 0
            _add(batch, raw)
            size += len(raw)
            batch = Batch(batch.params, batch.tags, batch.metrics, batch.end + len(raw))
    if size:
        yield batch


def clean_key(key: str) -> str:
    """Return a name that mlflow accepts: `ndcg@10` becomes `ndcg_at_10`, other refused characters `_`."""
    name = re.sub(r"[^\w\-. :/]", "_", key.replace("@", "_at_"))[:MAX_KEY] or "_"
    if posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        name = name.replace("/", "_").replace("..", "_")
    return "_" if name == "." else name


def _is_full(batch: Batch, size: int) -> bool:
    lines = len(batch.params) + len(batch.tags) + len(batch.metrics)
    full = len(batch.params) >= MAX_PARAMS or len(batch.tags) >= MAX_TAGS or lines >= MAX_LINES
    return lines > 0 and (full or size > MAX_BYTES)


def _add(batch: Batch, raw: bytes) -> None:
    try:
        line = json.loads(raw)
        kind, key, value = line["type"], clean_key(line["key"]), line["value"]
    except (ValueError, KeyError, TypeError):
        return  # cut off by a crash
    if kind == "param":
        batch.params.setdefault(key, str(value)[:MAX_PARAM_VALUE])
    elif kind == "tag":
        batch.tags[key] = str(value)[:MAX_TAG_VALUE]
    elif kind == "metric":
        batch.metrics.append(MetricValue(key, value, line["step"], line["at"]))

"""Files about steps whose loss or gradient is not finite, from which the cause can be found."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

_NAMED_ROWS = 5


@dataclass(frozen=True)
class BadBatch:
    """The file that a bad batch was written to, and one line that names the step, the fault and the rows."""

    path: Path
    message: str


def save_bad_batch(
    folder: Path, batch: Any, step: int, *, loss: float, gradient_norm: float, module: nn.Module
) -> BadBatch:
    """Write the batch and the circumstances of its step as JSON into `folder`.

    The file also names the parameters whose gradients are not finite: what they have in common often shows
    where the fault began.

    Args:
        batch: a dataclass; its fields `source` and `rows`, where it has them, are named in the message.
    """
    source, rows = getattr(batch, "source", None), getattr(batch, "rows", None)
    fault = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {gradient_norm}"
    broken = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    content = {
        "step": step,
        "loss": str(loss),
        "gradient_norm": str(gradient_norm),
        "source": source,
        "rows": rows,
        "parameters": broken,
        "batch": asdict(batch) if is_dataclass(batch) and not isinstance(batch, type) else batch,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad-step-{step}{_slug(source)}.json"
    path.write_text(json.dumps(content, default=str, ensure_ascii=False), encoding="utf-8")
    return BadBatch(path, f"step {step}: {fault}{_origin(source, rows)}")


def _origin(source: str | None, rows: list[Any] | None) -> str:
    """Name the source and the first rows of a batch."""
    if source is None:
        return ""
    if not rows:
        return f" on a batch of {source}"
    shown = ", ".join(str(row) for row in rows[:_NAMED_ROWS])
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    return f" on a batch of {source} (rows {shown}{more})"


def _slug(source: str | None) -> str:
    """Return a source's name as a part of a file name; the name may hold any character."""
    return f"-{re.sub(r'[^A-Za-z0-9._-]+', '-', source)[:60]}" if source else ""

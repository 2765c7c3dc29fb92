"""What is kept of a step whose loss or gradient is not finite, so that somebody can find out why."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from torch import nn

_NAMED_ROWS = 5


def keep_evidence(
    folder: Path, batch: Any, step: int, *, loss: float, gradient_norm: float, module: nn.Module
) -> tuple[Path, str]:
    """Save the batch as JSON; returns the file, and words that name what went wrong, source and rows.

    The parameters whose gradients are not finite are named in the file: what they have in common often tells
    where it began.
    """
    source, rows = (batch.get("source"), batch.get("rows")) if isinstance(batch, dict) else (None, None)
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {gradient_norm}"
    broken = [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    evidence = {
        "step": step,
        "loss": str(loss),
        "gradient_norm": str(gradient_norm),
        "source": source,
        "rows": rows,
        "parameters": broken,
        "batch": batch,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad-step-{step}{_slug(source)}.json"
    path.write_text(json.dumps(evidence, default=str, ensure_ascii=False), encoding="utf-8")
    return path, f"step {step}: {what}{_named(source, rows)}"


def _named(source: str | None, rows: list[Any] | None) -> str:
    if source is None:
        return ""
    if not rows:
        return f" on a batch of {source}"
    shown = ", ".join(str(row) for row in rows[:_NAMED_ROWS])
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    return f" on a batch of {source} (rows {shown}{more})"


def _slug(source: str | None) -> str:
    """A source's name as a part of a file's name; it may hold anything."""
    return f"-{re.sub(r'[^A-Za-z0-9._-]+', '-', source)[:60]}" if source else ""

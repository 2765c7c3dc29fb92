"""The check before a run that this machine has the memory that training is expected to need."""

from __future__ import annotations

from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.planning.checks.machine import trains_elsewhere
from embedline.planning.cost import estimate_run

# GB of a process that has loaded torch and transformers, before it has a model.
_LIBRARIES = 0.6


def memory_notes(config: RunConfig, base: Path | None, available: float) -> list[str]:
    """Return one line for each stage that may need more; none where a GPU or a pod trains.

    Args:
        base: folder of the base model; None where it is not on this machine.
        available: GB of this machine's memory.
    """
    if trains_elsewhere():
        return []
    found = estimate_run(config, base)
    shared = f"{found.processes} processes of " if found.processes > 1 else ""
    return [
        f"{stage.name} may need {found.processes * process:.1f} GB of memory ({shared}{process:.1f} GB, "
        f"every text at full length) and {available:.1f} GB are available: lower its batch_tokens, "
        f"resident_tokens or lengths{', or runtime.processes' if shared else ''}"
        for stage in found.stages
        if stage.memory_gb is not None
        and found.processes * (process := stage.memory_gb + _LIBRARIES) > available
    ]

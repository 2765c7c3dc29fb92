"""Whether this machine has the memory that the run's training is expected to need, said before it begins."""

from __future__ import annotations

from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.planning.checks.machine import trains_elsewhere
from embedline.planning.cost import estimate_run

# GB of a process that has loaded torch and transformers, before it has a model.
_LIBRARIES = 0.6


def memory_notes(config: RunConfig, base: Path | None, available: float) -> list[str]:
    """One line for each stage that may need more than there is; none where training is for a GPU or a pod.

    Args:
        base: folder of the base model, where it is at hand.
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

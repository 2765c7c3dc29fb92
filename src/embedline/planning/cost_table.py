"""The cost estimate of a run as plain lines."""

from __future__ import annotations

from embedline.planning.cost import GPUS, Estimate


def cost_table(estimate: Estimate) -> str:
    """Return the estimate as lines of a table, with notes."""
    lines = []
    if estimate.parameters is not None:
        lines.append(f"{estimate.parameters / 1e6:,.1f}M parameters in {estimate.layers} layers")
    lines.append(
        f"{'stage':<20}{'steps':>10}{'tokens up to':>14}{'batch':>9}{'tokens a step':>15}{'tokens':>9}"
        f"{'GPU-hours':>11}{'memory':>10}"
    )
    for stage in estimate.stages:
        for number, batch in enumerate(stage.batches):
            first = number == 0
            lines.append(
                f"{stage.name if first else '':<20}{f'{stage.steps:,}' if first else '':>10}"
                f"{batch.length:>14,}{batch.batch:>9,}{_short(batch.tokens):>15}"
                f"{_short(stage.tokens) if first else '':>9}{_hours(stage.gpu_hours) if first else '':>11}"
                f"{_gigabytes(stage.memory_gb) if first else '':>10}".rstrip()
            )
    if estimate.processes > 1:
        lines.append(f"memory: of each of {estimate.processes} processes, which share the tokens of a step")
    hours = [stage.gpu_hours for stage in estimate.stages if stage.gpu_hours is not None]
    if estimate.unknown:
        lines.append(f"no hours and no memory: {estimate.unknown}; set them in model.settings")
    elif hours:
        gpu = GPUS[estimate.gpu]
        lines.append(
            f"{_hours(sum(hours))} hours of one {estimate.gpu} at {estimate.utilisation:.0%} of "
            f"{gpu.peak / 1e12:,.0f} TFLOP/s, at most: every text counted at full length"
        )
        for stage in estimate.stages:
            if stage.memory_gb is not None and stage.memory_gb > gpu.memory / 1e9:
                lines.append(
                    f"note: {stage.name} needs {_gigabytes(stage.memory_gb)} on one GPU, an {estimate.gpu} "
                    f"has {gpu.memory / 1e9:.0f} GB: a smaller batch, or fewer chunk tokens"
                )
    return "\n".join(lines)


def minutes(seconds: float) -> str:
    """Return `40 s` below two minutes, then `38 minutes` and, from three hours on, `5.2 hours`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} hours"


def _short(count: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return f"{count:.0f}"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "-"
    return "<0.1" if hours < 0.1 else f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def _gigabytes(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.1 GB" if value < 0.1 else f"{value:.1f} GB" if value < 10 else f"{value:,.0f} GB"

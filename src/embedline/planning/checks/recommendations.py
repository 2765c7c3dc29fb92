"""Recommendations from papers, shown before a run. Nothing is refused here."""

from __future__ import annotations

from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.data.sources import count_rows, source_files
from embedline.errors import InputError

# Points of MTEB that nomic-embed-text-v1.5 loses against its 768 dims (its model card).
_NOMIC_LOSS = {512: 0.32, 256: 1.24, 128: 2.94, 64: 6.18}
_MOST_COUNTED = 2e9  # bytes of sources whose rows are counted for the number of passes


def advice(config: RunConfig, root: Path | None = None) -> list[str]:
    """Return one line for each recommendation, with the paper it comes from.

    Args:
        root: folder of the data; without it, passes over the data are not counted.
    """
    return [
        *_negatives(config),
        *_passes(config, root),
        *_objective(config),
        *_unused(config),
        *_dims(config),
        *_pruning(config),
    ]


def _unused(config: RunConfig) -> list[str]:
    notes = []
    for name in ("unsupervised", "supervised"):
        stage = getattr(config, name)
        if stage.enabled and stage.matryoshka and not config.model.dims:
            notes.append(f"{name}.matryoshka: model.dims is empty, so only the full width is trained")
        if stage.enabled and stage.matryoshka_weights and not stage.matryoshka:
            notes.append(f"{name}.matryoshka_weights: not used, because {name}.matryoshka is off")
    if config.supervised.enabled and config.supervised.negatives and not config.mine.enabled:
        notes.append("supervised.negatives: mining is off, so only negatives that the data has are used")
    beyond = [depth for depth in config.evaluate.needle_depths if depth >= config.model.document_length]
    if beyond:
        notes.append(
            f"evaluate.needle_depths: {beyond} lie beyond model.document_length "
            f"{config.model.document_length}; recall there is chance"
        )
    return notes


def _negatives(config: RunConfig) -> list[str]:
    if not config.supervised.enabled or config.supervised.negatives <= 7:
        return []
    return [
        f"supervised.negatives: {config.supervised.negatives}; more than 7 hard negatives gained Nomic Embed "
        "nothing, and each costs a document"
    ]


def _passes(config: RunConfig, root: Path | None) -> list[str]:
    stage = config.supervised
    rows = supervised_rows(config, root) if root is not None and stage.enabled else None
    if not rows:
        return []
    batch = min([bucket.batch for bucket in stage.buckets], default=stage.batch)
    passes = stage.steps * batch / rows
    if passes < 2:
        return []
    return [
        f"supervised.steps: {passes:.1f} passes over at most {rows:,} supervised records; "
        "more than one hurt Nomic Embed"
    ]


def _objective(config: RunConfig) -> list[str]:
    stages = {"unsupervised": config.unsupervised, "supervised": config.supervised}
    return [
        f"{name}.self_distillation: off; the unified loss without it took BGE-M3's lexical head from 53.9 to "
        "36.7 on MIRACL"
        for name, stage in stages.items()
        if stage.enabled and stage.objective == "unified" and not stage.self_distillation
    ]


def _dims(config: RunConfig) -> list[str]:
    if not (config.unsupervised.matryoshka or config.supervised.matryoshka):
        return []
    lost = {dim: _NOMIC_LOSS[dim] for dim in sorted(config.model.dims, reverse=True) if dim in _NOMIC_LOSS}
    wide = int(config.model.settings.get("hidden_size", 768)) >= 768
    if not wide or not any(loss > 1 for loss in lost.values()):
        return []
    costs = ", ".join(f"{dim} −{loss}" for dim, loss in lost.items())
    return [f"model.dims: short vectors cost points (of Nomic Embed's 62.28 on MTEB: {costs})"]


def _pruning(config: RunConfig) -> list[str]:
    if config.prune.when == "never" or config.prune.drop_share <= 0.25:
        return []
    return [
        f"prune.drop_share: {config.prune.drop_share}; a fifth of the parameters cost L3Prune 0.3 points, "
        "three quarters 5.1, after 1,000 healing steps"
    ]


def supervised_rows(config: RunConfig, root: Path) -> int | None:
    """Count the rows of the supervised sources, before cleaning; None when they are missing or too large."""
    total, size = 0, 0.0
    for source in config.data.sources:
        if "supervised" in source.stages:
            try:
                files = source_files(source.path, root)
            except InputError:
                return None
            size += sum(file.stat().st_size for file in files)
            if not files or size > _MOST_COUNTED:
                return None
            rows = count_rows(source.path, root, source.split, cheaply=True)
            if rows is None:
                return None
            total += min(rows, source.limit or rows)
    return total

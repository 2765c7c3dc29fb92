"""The check before a run that each stage has the rows that its batch needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedline.config.data import CorpusSource, Source
from embedline.config.schema import RunConfig
from embedline.data.sources import count_rows, source_name
from embedline.errors import InputError


def require_enough(config: RunConfig, root: Path) -> None:
    """Refuse a batch that no source of its stage can fill, even if cleaning rejects nothing.

    Sources that cannot be counted cheaply (folders, datasets that only the hub has) are assumed to be large
    enough; the stage itself counts the rows again after cleaning.

    Raises:
        InputError: naming the stage's batch.
    """
    for where, batch, items in _batches(config):
        rows = _largest(items, root, batch)
        if rows is not None and rows < batch:
            raise InputError(
                f"the largest source has {rows} rows, one batch needs {batch}.",
                where=where,
                fix="Lower it, or bring more data.",
            )


def _batches(config: RunConfig) -> Iterator[tuple[str, int, list[Source] | list[CorpusSource]]]:
    """Yield each setting, its batch and the sources that fill it; weights do not lower the rows needed."""
    if config.pretrain.enabled and all(item.weight == 1 for item in config.data.corpus):
        yield "pretrain.batch", config.pretrain.batch, config.data.corpus
    for name, stage in (("unsupervised", config.unsupervised), ("supervised", config.supervised)):
        if stage.enabled:
            batch = min([bucket.batch for bucket in stage.buckets], default=stage.batch)
            items = [item for item in config.data.sources if name in item.stages]
            yield f"{name}.{'buckets' if stage.buckets else 'batch'}", batch, items


def _largest(items: list[Source] | list[CorpusSource], root: Path, most: int) -> int | None:
    """Count the rows of the largest source (a corpus is one source), up to `most`; None where unknown."""
    counts: dict[str, int] = {}
    for item in items:
        texts = isinstance(item, CorpusSource)
        name = "corpus" if texts else source_name(item.name, item.path)
        most_of_item = min(most, item.limit or most)
        rows = count_rows(item.path, root, item.split, texts=texts, at_most=most_of_item, cheaply=True)
        if rows is None:
            return None
        counts[name] = counts.get(name, 0) + rows
        if counts[name] >= most:
            return most
    return max(counts.values(), default=None)

"""The check that the sets, sources and tasks that a config refers to by name exist in it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator

from embedline.config.data import first_repeated
from embedline.config.schema import RunConfig
from embedline.data.evaluation_sets import set_names
from embedline.data.sources import source_name
from embedline.errors import InputError
from embedline.evaluation.compare import BENCHMARK
from embedline.evaluation.haystack import set_name


def require_known_names(config: RunConfig) -> None:
    """Refuse unknown names, which would otherwise fail in the last steps, after all training.

    Raises:
        InputError: a name is unknown (the message has the setting and the nearest name), or not unique.
    """
    _require_distinct_sources(config)
    sets = held_out_sets(config)
    if config.data.hold_out is not None and first_repeated(sets):
        raise InputError(f"a set called {sets[-1]!r} exists already.", where="data.hold_out.name")
    for where, name, known in _named(config, sets):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known)) or 'none'}."
            raise InputError(f"there is no {name!r}.", where=where, fix=hint)
    if config.evaluate.mteb_tasks:
        from embedline.evaluation.rumteb import require_tasks

        require_tasks(config.evaluate.mteb_tasks)


def held_out_sets(config: RunConfig) -> list[str]:
    """List the run's held-out sets: those of data.evaluation, then the one that data.hold_out makes.

    Raises:
        InputError: two sets of data.evaluation have one name, or a name is a path.
    """
    held_out = config.data.hold_out
    return [*set_names(config.data.evaluation), *([held_out.name] if held_out is not None else [])]


def _require_distinct_sources(config: RunConfig) -> None:
    """Refuse two sources of one name: stages, weights and rows of a source are found by its name."""
    for group in ("sources", "corpus"):
        items = getattr(config.data, group)
        names = [source_name(item.name, item.path) for item in items]
        if repeated := first_repeated(names):
            number, first = repeated
            raise InputError(
                f"{items[first].path} and {items[number].path} are both called {names[number]!r}.",
                where=f"data.{group}.{number}.name",
                fix="Give this one another name.",
            )


def _named(config: RunConfig, sets: list[str]) -> Iterator[tuple[str, str, Collection[str]]]:
    """Yield each setting that refers to something by name, the name, and the known names."""

    if config.data.hold_out is not None:
        sources = {source_name(item.name, item.path) for item in config.data.sources}
        for number, name in enumerate(config.data.hold_out.sources):
            yield f"data.hold_out.sources.{number}", name, sources
    for key in ("stage_sets", "onnx_sets"):
        for number, name in enumerate(getattr(config.evaluate, key)):
            yield f"evaluate.{key}.{number}", name, sets
    tasks = [*config.evaluate.mteb_tasks, BENCHMARK] if config.evaluate.mteb_tasks else []
    scored = {"*", *sets, *tasks, *map(set_name, config.evaluate.needle_depths)}
    for number, rule in enumerate(config.gate.rules):
        for name in [rule.set] if isinstance(rule.set, str) else rule.set:
            yield f"gate.rules.{number}.set", name, scored

"""Pins of all data and models that a run depends on: digests or revisions, and locations on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedline.artifacts.manifest import file_sha256, folder_digest
from embedline.config.data import CorpusSource, Source
from embedline.config.schema import RunConfig
from embedline.data.hub import hub_name
from embedline.data.sources import is_hub, locate, source_files, source_name
from embedline.errors import InputError
from embedline.models.resolve import resolve_model
from embedline.quoting import home_expanded, path_problem

_KEYS = {"base": "model.base", "teacher": "teacher.model"}


@dataclass
class Pinned:
    """Digests (part of step keys), locations on this machine (not part of them), revisions of hub sources."""

    pins: dict[str, Any] = field(default_factory=dict)
    locations: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)


def pin_data(config: RunConfig, root: Path) -> Pinned:
    """Pin sources, corpus and evaluation sets: digests of files, revisions of hub datasets.

    Raises:
        InputError: one does not exist, cannot be read or is empty.
    """
    pinned = Pinned(locations={"root": str(root)})
    sources: dict[str, str] = {}
    for name, place, item in named_sources(config):
        sources[name] = _pin_source(item.path, root, f"{place}.path", pinned.revisions)
    evaluation = {}
    for number, held_out in enumerate(config.data.evaluation):
        folder = root / home_expanded(held_out.path)
        where = f"data.evaluation.{number}.path"
        if not folder.is_dir():
            raise InputError(
                "no such evaluation folder.", where=f"{where}: {folder}", fix="Correct the path."
            )
        evaluation[held_out.name or folder.name] = _files_digest(sorted(_files(folder)), folder, where)
    pinned.pins |= {"sources": sources, "evaluation": evaluation}
    return pinned


def named_sources(config: RunConfig) -> Iterator[tuple[str, str, Source | CorpusSource]]:
    """Yield sources and corpus with the name of their pin and their config key (`data.sources.0`).

    Two files may have one stem: the later one's pin then ends with its number.
    """

    taken: set[str] = set()
    groups: dict[str, Sequence[Source | CorpusSource]] = {
        "sources": config.data.sources,
        "corpus": config.data.corpus,
    }
    for group, items in groups.items():
        for number, item in enumerate(items):
            name = f"{group}.{source_name(item.name, item.path)}"
            if name in taken:
                name = f"{name}.{number}"
            taken.add(name)
            yield name, f"data.{group}.{number}", item


def pin_models(config: RunConfig, root: Path) -> Pinned:
    """Pin base and teacher, and the local copies of mteb's datasets."""

    pinned = Pinned(pins={"base": None, "teacher": None, "mteb": None})
    wanted = {"base": (config.model.base, config.model.revision)}
    if config.teacher:
        wanted["teacher"] = (config.teacher.model, config.teacher.revision)
    for role, (reference, revision) in wanted.items():
        if reference:
            try:
                found = resolve_model(reference, revision, root=root)
            except InputError as error:
                raise InputError(error.what, where=f"{_KEYS[role]}: {error.where}", fix=error.fix) from error
            pinned.pins[role], pinned.locations[role] = found.digest, str(found.path)
    if config.evaluate.mteb_tasks and config.evaluate.mteb_root:
        folder = root / home_expanded(config.evaluate.mteb_root)
        if not folder.is_dir():
            raise InputError(
                "is not a folder.", where=f"evaluate.mteb_root: {folder}", fix="Correct the path."
            )
        pinned.pins["mteb"], pinned.locations["mteb"] = folder_digest(folder), str(folder)
    return pinned


def _pin_source(path: str, root: Path, where: str, revisions: dict[str, str]) -> str:

    try:
        files = source_files(path, root)
        if is_hub(path) and not files:
            name, _, revision = hub_name(path)
            revisions[path] = revision or _hub_revision(name)
            return f"hub:{revisions[path]}"
    except InputError as error:
        raise InputError(error.what, where=f"{where}: {error.where}", fix=error.fix) from error
    base = root if is_hub(path) else locate(path, root)
    return _files_digest(files, base if base.is_dir() else base.parent, where)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _files_digest(files: Sequence[Path], base: Path, where: str) -> str:
    """Return one digest over names below `base` and contents; refuse an unreadable or empty source."""
    if sum(_size(file, where) for file in files) == 0:
        raise InputError(
            "is empty.",
            where=f"{where}: {files[0] if len(files) == 1 else base}",
            fix="Fill it or leave it out.",
        )
    digest = hashlib.sha256()
    for file in files:
        if problem := path_problem(file):
            raise InputError(f"{problem}.", where=f"{where}: {str(file)!r}", fix="Rename it.")
        name = file.relative_to(base).as_posix() if len(files) > 1 else file.suffix
        digest.update(f"{name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _size(file: Path, where: str) -> int:
    if not os.access(file, os.R_OK):
        raise InputError("cannot be read.", where=f"{where}: {file}", fix="Check its permissions.")
    return file.stat().st_size


def _hub_revision(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name, timeout=20).sha)
    except Exception as error:  # the hub client has a dozen error types for "not found" and "not reachable"
        raise InputError(
            f"the hub does not give this dataset ({type(error).__name__}).",
            where=f"hub:{name}",
            fix=f"Check the name and the network, write hub:{name}@REVISION, or put a copy below data.root.",
        ) from error

"""The fingerprint of a run: everything that decides its model and the verdict on it, as one train key.

Equal content has an equal key on every machine: no absolute paths, no times, no data.root. What changes
neither the model nor the verdict is left out: tracking, scheduling, the description, the promotion policy,
how often a step logs and saves checkpoints, threads and processes. So is the champion: it changes with every
promotion, which is no reason to train again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedline.artifacts.code_version import code_version
from embedline.artifacts.durable import write_json
from embedline.artifacts.run_folder import FINGERPRINT
from embedline.artifacts.workspace import Workspace
from embedline.components.image import IMAGE, RECIPE
from embedline.config.load import load_config
from embedline.config.schema import RunConfig
from embedline.dag import STEPS
from embedline.data.root import data_root
from embedline.data.sources import count_rows, is_hub, source_files
from embedline.planning.pins import Pinned, named_sources, pin_data, pin_models
from embedline.quoting import home_expanded

PARTS = ("data", "code", "image", "config", "base")
_LAST_STEP = "gate"  # the steps after it only register and report
_MACHINE = ("threads", "processes")  # of runtime: how fast a step is
_SILENT = ("checkpoint_every", "log_every")  # settings of a stage that do not change its weights
_TABLES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")  # of a held-out set
_PINNED = ("base", "revision", "model", "path", "mteb_root", "root")  # are in `data` and `base`, by content


@dataclass(frozen=True)
class DataEntry:
    """One outside piece of data.

    Args:
        kind: sources, corpus, evaluation or mteb.
        uri: as in the config: a path below data.root, the file name of an absolute path, or hub:ORG/NAME.
        size: bytes; None, as `rows`, for a dataset of the hub that is not on this machine.
        checksum: SHA-256 over contents (of a folder: and names), or `hub:REVISION`.
    """

    kind: str
    name: str
    uri: str
    size: int | None
    rows: int | None
    checksum: str


@dataclass(frozen=True)
class ModelEntry:
    """An outside model.

    Args:
        role: base or teacher.
        uri: as in the config, in the form of a data entry's.
        revision: the hub model's revision in the config.
        checksum: SHA-256 over its files; only this is part of the key.
    """

    role: str
    uri: str
    revision: str | None
    checksum: str


@dataclass(frozen=True)
class Fingerprint:
    """The parts of a train key.

    Args:
        data: sorted by kind and name.
        code: digest of the sources that the steps up to the gate import.
        image: the components' image. It is not part of the key: its tag changes with any code, also with code
            that makes no model, and its digest is known only after a push.
        recipe: digest of the image's libraries.
        config: the resolved config without settings that change no model.
        base: the base and the teacher, where the run has them.
    """

    data: tuple[DataEntry, ...]
    code: str
    image: str
    recipe: str
    config: dict[str, Any]
    base: tuple[ModelEntry, ...]

    def parts(self) -> dict[str, str]:
        """Return each part as one short string."""
        return {
            "data": _digest([asdict(entry) for entry in self.data]),
            "code": self.code,
            "image": self.recipe,
            "config": _digest(self.config),
            "base": _digest({entry.role: entry.checksum for entry in self.base}),
        }

    @property
    def train_key(self) -> str:
        return _digest(self.parts())

    def manifest(self) -> str:
        """Return the fingerprint as one line of JSON, for `parse`."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> Fingerprint | None:
        """Parse what `manifest` returned; None when the text is something else."""
        try:
            values = json.loads(text)
            data = tuple(DataEntry(**entry) for entry in values.pop("data"))
            base = tuple(ModelEntry(**entry) for entry in values.pop("base"))
            return Fingerprint(data=data, base=base, **values)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def take_fingerprint(preset: str, overrides: Sequence[str], workspace: Path) -> Fingerprint:
    """Take the fingerprint of a preset from the data on this machine, without the tracking server.

    Raises:
        InputError: the config, a source or a model is not usable.
    """
    config = load_config(preset, overrides)
    root = data_root(config, preset, Workspace(workspace))
    return fingerprint_of(config, root, pin_data(config, root), pin_models(config, root))


def fingerprint_of(config: RunConfig, root: Path, data: Pinned, models: Pinned) -> Fingerprint:
    """Make the fingerprint of what is pinned already; sizes and rows are read from `root`."""
    entries = sorted(_data(config, root, data, models), key=lambda entry: (entry.kind, entry.name))
    base = [ModelEntry(*named, models.pins[named[0]]) for named in named_models(config)]
    return build(config, entries, base)


def build(config: RunConfig, data: Sequence[DataEntry], base: Sequence[ModelEntry]) -> Fingerprint:
    """Build a fingerprint from data, config and base model, with this code and its image."""
    return Fingerprint(tuple(data), _code(), IMAGE, RECIPE, _config(config), tuple(base))


def write_fingerprint(run_folder: Path, found: Fingerprint) -> None:
    """Write fingerprint.json: train_key, the parts (of the image its name) and the manifest, as strings."""
    parts = {**found.parts(), "image": found.image}
    values = {"train_key": found.train_key, **parts, "manifest": found.manifest()}
    write_json(run_folder / FINGERPRINT, values)


def named_data(config: RunConfig) -> list[tuple[str, str, str]]:
    """List kind, name and uri of all data in a config, in the manifest's order."""
    found = [
        (name.partition(".")[0], name.partition(".")[2], _uri(item.path))
        for name, _, item in named_sources(config)
    ]
    found += [
        ("evaluation", item.name or Path(item.path).name, _uri(item.path)) for item in config.data.evaluation
    ]
    if config.evaluate.mteb_tasks and config.evaluate.mteb_root:
        found.append(("mteb", "mteb", _uri(config.evaluate.mteb_root)))
    return sorted(found)


def named_models(config: RunConfig) -> list[tuple[str, str, str | None]]:
    """List role, uri and revision of all outside models in a config."""
    found = []
    if config.model.base:
        found.append(("base", _uri(config.model.base), config.model.revision))
    if config.teacher:
        found.append(("teacher", _uri(config.teacher.model), config.teacher.revision))
    return found


def _data(config: RunConfig, root: Path, data: Pinned, models: Pinned) -> Iterator[DataEntry]:

    for name, _, item in named_sources(config):
        kind, _, own = name.partition(".")
        files = source_files(item.path, root)
        yield DataEntry(
            kind,
            own,
            _uri(item.path),
            _size(files) if files else None,
            count_rows(item.path, root, item.split, texts=kind == "corpus"),
            data.pins["sources"][name],
        )
    for held_out in config.data.evaluation:
        folder = root / home_expanded(held_out.path)
        name = held_out.name or folder.name
        files = [path for path in folder.rglob("*") if path.is_file()]
        tables = [path for path in files if path.name.lower().endswith(_TABLES)]
        rows = sum(count_rows(path.name, path.parent) or 0 for path in tables)
        yield DataEntry(
            "evaluation", name, _uri(held_out.path), _size(files), rows, data.pins["evaluation"][name]
        )
    if models.pins["mteb"]:
        files = [path for path in Path(models.locations["mteb"]).rglob("*") if path.is_file()]
        uri = _uri(config.evaluate.mteb_root)
        yield DataEntry("mteb", "mteb", uri, _size(files), None, models.pins["mteb"])


def _uri(path: str) -> str:
    """Return a name that is equal on every machine: the file name of an absolute path, no hub revision."""

    if is_hub(path):
        return path.partition("@")[0]
    place = home_expanded(path)
    return place.name if place.is_absolute() else place.as_posix()


def _size(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _code() -> str:
    names = list(STEPS)
    modules = sorted({STEPS[name].module for name in names[: names.index(_LAST_STEP) + 1]})
    return _digest({module: code_version(module) for module in modules})[:16]


def _config(config: RunConfig) -> dict[str, Any]:
    """Return the sections that the steps up to the gate read, and the registered model's name."""
    names = list(STEPS)
    read = {
        section.partition(".")[0]
        for name in names[: names.index(_LAST_STEP) + 1]
        for section in STEPS[name].reads
    }
    values = {key: value for key, value in config.model_dump(mode="json").items() if key in read}
    for section in ("pretrain", "unsupervised", "supervised"):
        _drop(values[section], _SILENT)
    _drop(values["runtime"], _MACHINE)
    for (name, _, _), item in zip(
        named_sources(config), [*values["data"]["sources"], *values["data"]["corpus"]], strict=True
    ):
        item["name"] = name.partition(".")[2]
        _drop(item, _PINNED)
    for held_out in values["data"]["evaluation"]:
        held_out["name"] = held_out["name"] or Path(held_out["path"]).name
        _drop(held_out, _PINNED)
    for outside in (values["data"], values["model"], values["evaluate"], values["teacher"] or {}):
        _drop(outside, _PINNED)
    return {"name": config.promote.model or config.name, **values}


def _drop(values: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        values.pop(key, None)


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

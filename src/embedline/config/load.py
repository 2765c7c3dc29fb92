"""Loading of a preset, with `extends:` and `-o section.key=value` overrides, as a validated `RunConfig`."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from embedline.config.base import section_in
from embedline.config.preset_input import is_text, pack, unpack
from embedline.config.renamed import old_spellings
from embedline.config.schema import RunConfig
from embedline.config.yamltext import MAX_DEPTH, read_yaml
from embedline.encoding import read_text
from embedline.errors import InputError, os_reason

PRESETS = "embedline.pipelines.retrain"
_SHOWN = 20  # problems in one message


def preset_names() -> list[str]:
    """List the presets that ship with the package."""
    folder = resources.files(PRESETS) / "presets"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_config(preset: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset, apply overrides and validate the result.

    Args:
        preset: a shipped preset's name, or the path of a YAML file.
        overrides: each `section.key=value`; the value is YAML, list items are addressed by index.

    Raises:
        InputError: no such preset, broken YAML, an unknown key (the message names the nearest known one) or a
            value of the wrong type, with the key and the file.

    Example:
        >>> config = load_config("demo", ["supervised.steps=100"])
        >>> config.supervised.steps
        100
    """
    where = "preset" if is_text(preset) else preset
    return validate_config(_with_overrides(preset, overrides), where=where)


def deprecated(preset: str, overrides: Sequence[str] = ()) -> list[str]:
    """Describe, one a line, the old spellings that a preset or its overrides still use."""
    return old_spellings(_with_overrides(preset, overrides))


def overridden(values: dict[str, Any], overrides: Sequence[str], *, where: str) -> RunConfig:
    """Apply overrides to the values of a config that was saved as JSON.

    Raises:
        InputError: as in `load_config`.
    """
    values = copy.deepcopy(values)
    for override in overrides:
        _apply(values, override)
    return validate_config(values, where=where)


def _with_overrides(preset: str, overrides: Sequence[str]) -> dict[str, Any]:
    values = _read(preset, ())
    for override in overrides:
        _apply(values, override)
    return values


def validate_config(values: dict[str, Any], *, where: str) -> RunConfig:
    """Validate the values of a preset.

    Args:
        where: the preset's name or file, for the message.

    Raises:
        InputError: everything that is wrong with the values, in one message.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors(include_url=False)]
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError("; ".join(problems[:_SHOWN]) + f"{more}.", where=where) from error


def preset_text(preset: str) -> str:
    """Write a preset for another machine: a shipped name as it is, a file as text on one line.

    Raises:
        InputError: no such preset, or it cannot be read.
    """
    if not _is_file(preset):
        return preset
    return pack(_read(preset, ()))


def preset_name(preset: str) -> str:
    """Return a name for display: the shipped name, the file's stem, or the name in a preset's text."""
    if is_text(preset):
        return str(_read(preset, ()).get("name", "preset"))
    return Path(preset).stem


def _read(preset: str, seen: tuple[str, ...], folder: Path = Path()) -> dict[str, Any]:
    """Read a preset's values, merged over those of the preset it extends; paths start at `folder`."""
    text, where = _text_of(preset, folder)
    try:
        # what `preset_text` wrote is JSON
        values = json.loads(text) if is_text(preset) else read_yaml(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(f"is not valid YAML ({' '.join(str(error).split())}).", where=where) from error
    except RecursionError as error:
        raise InputError("is not a preset: it is nested too deeply.", where=where) from error
    if not isinstance(values, dict):
        raise InputError("is not a preset: a preset is a mapping of sections.", where=where)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise InputError(f"extends: takes one preset, got {parent!r}.", where=where)
    here = where
    if _is_file(preset):
        folder = (folder / preset).parent
        here = str((folder / Path(preset).name).resolve())
    if here in seen:
        raise InputError(f"extends {parent!r}, which extends it again.", where=where)
    return _merge(_read(parent, (*seen, here), folder), values)


def _is_file(preset: str) -> bool:
    return not is_text(preset) and Path(preset).suffix in {".yaml", ".yml"}


def _text_of(preset: str, folder: Path) -> tuple[str, str]:
    if is_text(preset):
        return unpack(preset), "preset"
    if _is_file(preset):
        path = folder / preset
        if not path.is_file():
            raise InputError("no such preset file.", where=str(path))
        try:
            return read_text(path), str(path)
        except OSError as error:
            raise InputError(f"cannot be read ({os_reason(error)}).", where=str(path)) from error
    known = preset_names()
    if preset not in known:
        raise InputError(
            f"no preset is called {preset!r}.{_nearest(preset, known)}",
            fix=f"Known: {', '.join(known)}; or give the path of a .yaml file.",
        )
    text = (resources.files(PRESETS) / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    return text, f"preset {preset}"


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    shown = _short(override)
    if not equals or not key.strip():
        raise InputError(f"override {shown} is not of the form section.key=value.")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"override {shown}: the value is not valid YAML ({reason}).") from error
    *parents, last = key.strip().split(".")
    if len(parents) >= MAX_DEPTH:
        raise InputError(f"override {shown}: the key has more than {MAX_DEPTH} parts.")
    node: Any = values
    for part in parents:
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            raise InputError(f"override {shown}: there is nothing at {part!r} to set a key of.")
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise InputError(f"override {shown}: there is nothing to set {last!r} of.")


def _explain(item: Mapping[str, Any]) -> str:
    """Turn one validation error into a message that names the key."""
    location = tuple(item["loc"])
    key = ".".join(str(part) for part in location) or "preset"
    if item["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(str(location[-1]), _fields_at(location[:-1]))}"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "model_type":
        return f"{key}: is a section of settings, got {_short(item['input'])}"
    if item["type"] == "value_error":
        return f"{key}: {message}" if location else message
    return f"{key}: {message[:1].lower()}{message[1:]}, got {_short(item['input'])}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """List the keys that the schema has at a place in the config."""
    model: type[BaseModel] | None = RunConfig
    for part in location:
        if model is None:
            return []
        if isinstance(part, int) or part not in model.model_fields:
            continue  # an index or a free key: `model` is already the item's
        model = section_in(model.model_fields[part].annotation)
    return list(model.model_fields) if model else []


def read_overrides(text: str) -> list[str]:
    """Split a text into overrides: one `section.key=value` a line, or a JSON list of them."""
    if text.lstrip().startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not a JSON list ({error}).", where="overrides") from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]

"""The folder of the model that a command names: on this machine, or in the registry."""

from __future__ import annotations

import re
from pathlib import Path

from embedline.artifacts.manifest import require_intact
from embedline.artifacts.workspace import Workspace
from embedline.cli.work_folder import tracking_uri
from embedline.errors import InputError
from embedline.quoting import home_expanded
from embedline.registry.download import downloaded
from embedline.registry.files import verify_folder
from embedline.registry.versions import get_champion

# A folder with the last one alone is no model that can be loaded, but its error names what it is.
_MODEL_FILES = ("config.json", "model.onnx", "modules.json", "adapter_config.json")


def find_model(model: str, work: Path, uri: str) -> Path:
    """Find a model: its folder, an ONNX folder, a run's folder, `models:/name@alias` or `models:/name/3`.

    Raises:
        InputError: there is no such model, or its folder is damaged.
        StepError: its files are not those that were registered.
    """
    if model.startswith("models:"):
        return _registered(model, work, uri)
    folder = home_expanded(model)
    for candidate in (folder, folder / "model"):
        if any((candidate / file).is_file() for file in _MODEL_FILES):
            require_intact(candidate)
            return candidate
    raise InputError(
        "is not a model folder (no config.json) and not an ONNX folder (no model.onnx).",
        where=model,
        fix="Give for example runs/latest/model, runs/latest/onnx, or models:/NAME@champion.",
    )


def _registered(model: str, work: Path, uri: str) -> Path:
    """Find a registered model; one that is not on this machine is downloaded into the work folder."""
    match = re.fullmatch(r"models:/+([^/@]+)(?:@([^/@]+)|/(\d+))", model)
    if match is None:
        raise InputError("is not of the form models:/NAME@ALIAS or models:/NAME/VERSION.", where=model)
    name, alias, number = match.groups()
    address = tracking_uri(uri, work)
    if alias is not None:
        champion = get_champion(name, alias, uri=address)
        if champion is None:
            raise InputError(f"no version of {name!r} has the alias {alias!r}.", where=address)
        if champion.path is not None:
            verify_folder(champion.path, champion.tags, f"{name} version {champion.version}")
            return champion.path
        version = champion.version
    else:
        version = int(number)
    folder = Workspace(work).internal / "models" / f"{name}-{version}"
    return downloaded(name, version, folder, uri=address)

"""An encoder for any model folder, for `embed` and `search`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedline.artifacts.manifest import require_intact
from embedline.artifacts.workspace import Workspace
from embedline.cli.work_folder import tracking_uri
from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.models.stated import NOTHING, Stated, require_unstated
from embedline.quoting import home_expanded
from embedline.registry.download import downloaded
from embedline.registry.files import verify_folder
from embedline.registry.versions import get_champion
from embedline.vectors.unit import unit

# A folder with the last one alone is no model that can be loaded, but its error names what it is.
_MODEL_FILES = ("config.json", "model.onnx", "modules.json", "adapter_config.json")


class Encoder:
    """A model that encodes queries and documents with its own prompts and lengths; ONNX needs no torch."""

    def __init__(self, folder: Path, trust_remote_code: bool = False, stated: Stated = NOTHING) -> None:
        self.folder = folder
        self._model: Any
        self._spec: Any
        if (folder / "model.onnx").is_file():
            from embedline.export.runtime import OnnxEmbedder

            require_unstated(folder, stated)
            self._model = self._spec = OnnxEmbedder(folder)
        else:
            from embedline.models.device import best_device
            from embedline.models.folder import load_embedder
            from embedline.models.machine import prepare

            prepare(RuntimeConfig())
            loaded = load_embedder(folder, trust_remote_code=trust_remote_code, stated=stated)
            self._model = loaded.to(best_device())
            self._spec = self._model.spec

    def encode(self, texts: Sequence[str], side: str, dim: int | None = None) -> np.ndarray:
        """Encode texts of one side (query or document) as unit vectors (N × D, or N × dim).

        Raises:
            InputError: the model's vectors are shorter than `dim`.
        """
        length = self._spec.query_length if side == "query" else self._spec.document_length
        prompt = self._spec.prompts.prompt(side)
        vectors: np.ndarray = self._model.encode(texts, prompt=prompt, max_length=length)
        if dim is None:
            return vectors
        if dim > vectors.shape[1]:
            raise InputError(f"the model's vectors have {vectors.shape[1]} values.", where=f"--dim {dim}")
        return unit(vectors, dim)


def open_encoder(
    model: str, work: Path, uri: str, trust_remote_code: bool = False, stated: Stated = NOTHING
) -> Encoder:
    """Load the model that `find_model` finds."""
    return Encoder(find_model(model, work, uri), trust_remote_code, stated)


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

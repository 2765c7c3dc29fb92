"""Pickled weights of a model folder, read without running their code and written once as safetensors.

Only the folder of the Transformer and those of the Dense modules are looked at: a folder without a file of
torch's own form there is left to `require_files`, which names what it holds.
"""

from __future__ import annotations

import fnmatch
import logging
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from embedline.artifacts.durable import put_in_place
from embedline.errors import InputError, first_line
from embedline.models.model_files import PICKLED, has_safetensors, read_json
from embedline.models.st_modules import read_modules, transformer_folder

_log = logging.getLogger(__name__)

INDEX = f"{PICKLED}.index.json"
# Not copied beside the converted weights: other forms of them, and what tools keep in a folder.
_LEFT_OUT = ("*.bin", INDEX, "*.h5", "*.msgpack", "*.ot", "*.ckpt", "*.onnx", "*.gguf", ".*")
_LEFT_OUT_FOLDERS = ("onnx", "openvino", "coreml")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FIX = (
    "Convert it where you trust the file: AutoModel.from_pretrained(MODEL).save_pretrained(FOLDER), and "
    "AutoTokenizer likewise; or name a revision that has safetensors as model.revision."
)


def pickled_folders(folder: Path) -> list[Path]:
    """List the folders, of the Transformer and of Dense modules, whose weights are pickled only."""
    dense = [folder / module.path for module in read_modules(folder) if module.kind == "Dense"]
    return [
        inner
        for inner in (transformer_folder(folder), *dense)
        if not has_safetensors(inner) and any((inner / name).is_file() for name in (PICKLED, INDEX))
    ]


def converted(folder: Path, digest: str, keep: Path) -> Path:
    """Return a copy of `folder` with safetensors weights: the one kept below `keep`, or a new one there.

    Weights that share memory (tied embeddings) are written once under each of their names.

    Args:
        digest: of the folder's content; names the copy.

    Raises:
        InputError: a file of weights is damaged, incomplete, or needs code of its own to be read.
    """
    kept = keep / f"converted-{digest[:16]}"
    if kept.is_dir():
        return kept
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=keep) as draft:
        copy = Path(draft) / "model"
        shutil.copytree(folder, copy, ignore=_left_out)
        for inner in pickled_folders(folder):
            target = copy / inner.relative_to(folder)
            target.mkdir(parents=True, exist_ok=True)
            save_file(_distinct(_read(inner)), target / "model.safetensors", metadata={"format": "pt"})
        try:
            put_in_place(copy, kept)
        except OSError:
            if not kept.is_dir():  # else another process wrote the same first
                raise
    _log.info("%s: its pickled weights were converted, without running code, to %s", folder, kept)
    return kept


def _left_out(folder: str, names: list[str]) -> set[str]:
    left = {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in _LEFT_OUT)}
    return left | {name for name in names if name in _LEFT_OUT_FOLDERS and Path(folder, name).is_dir()}


def _read(inner: Path) -> dict[str, Tensor]:
    return {name: tensor for file in _files(inner) for name, tensor in _load(file).items()}


def _files(inner: Path) -> Iterator[Path]:
    """Yield the file of weights of a folder, or the parts that its index names."""
    if (inner / PICKLED).is_file():
        yield inner / PICKLED
        return
    parts = {str(name) for name in read_json(inner / INDEX).get("weight_map", {}).values()}
    for name in sorted(parts):
        if Path(name).name != name or not (inner / name).is_file():
            raise InputError(
                f"names the part {name!r}, which is not there.",
                where=str(inner / INDEX),
                fix="Copy or download the whole model.",
            )
        yield inner / name


def _load(file: Path) -> dict[str, Tensor]:
    """Read a file of weights; memory-mapped, except in torch's form before 1.6."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))  # torch's own message recommends running the code
        what = f"needs code to be read ({named[1]}), which is not run" if named else "is damaged"
        raise InputError(f"{what}.", where=str(file), fix=_FIX) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"cannot be read ({first_line(error)}).", where=str(file), fix="Copy or download it again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError("holds other things than a model's weights by name.", where=str(file), fix=_FIX)
    return found


def _distinct(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with memory of their own: safetensors writes no tensors that share it."""
    taken: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        place = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone().contiguous() if place in taken else tensor.contiguous()
        taken.add(place)
    return own

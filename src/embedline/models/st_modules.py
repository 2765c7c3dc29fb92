"""The modules of a sentence-transformers folder, as its modules.json lists them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from embedline.errors import InputError, first_line

MODULES = "modules.json"
_PACKAGE = "sentence_transformers."
# Names of the Transformer module's settings, newest first; sentence-transformers reads the first one there.
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_WITH_CONFIG = {"Pooling", "Dense", "LayerNorm"}  # Normalize has none, and git keeps no empty folder


@dataclass(frozen=True)
class StModule:
    """One module of a sentence-transformers model.

    Args:
        idx: place in the list, from 0.
        name: its key in the model.
        path: its folder, relative to the model's; empty for the model's own folder.
        type: dotted name of its class.
    """

    idx: int
    name: str
    path: str
    type: str

    @property
    def kind(self) -> str:
        """Class name of one of sentence-transformers' own classes (Pooling); of another's the whole type."""
        return self.type.rpartition(".")[2] if self.type.startswith(_PACKAGE) else self.type


def read_modules(folder: Path) -> tuple[StModule, ...]:
    """Read the modules of a folder in their order; empty when it has no modules.json.

    Raises:
        InputError: as for `list_modules`, or a module's config.json is missing.
    """
    modules = list_modules(folder)
    for module in modules:
        _require_config(module, folder)
    return modules


def list_modules(folder: Path) -> tuple[StModule, ...]:
    """Read modules.json alone, as while the modules are being downloaded; empty when there is none.

    Raises:
        InputError: it is damaged, repeats a name, or names a path outside the folder.
    """
    file = folder / MODULES
    if not file.is_file():
        return ()
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        modules = tuple(
            StModule(idx, str(item.get("name", idx)), item["path"], item["type"])
            for idx, item in enumerate(listed)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"is not a list of modules with path and type ({type(error).__name__}: {first_line(error)}).",
            where=str(file),
        ) from error
    names = [module.name for module in modules]
    if not modules or len(set(names)) < len(names):
        raise InputError("lists no module, or two of one name.", where=str(file))
    for module in modules:
        _require_inside(module, file)
    return modules


def find_module(modules: tuple[StModule, ...], kind: str) -> StModule | None:
    """Return the first module of a kind; None when there is none."""
    return next((module for module in modules if module.kind == kind), None)


def module_config(folder: Path, module: StModule) -> dict[str, Any]:
    """Read a module's config.json.

    Raises:
        InputError: it is not a JSON object.
    """
    return _read_object(folder / module.path / "config.json")


def transformer_folder(folder: Path) -> Path:
    """Return the folder of config, weights and tokenizer: the model's own, or its Transformer module's.

    Old models have them in 0_Transformer/.

    Raises:
        InputError: as for `read_modules`.
    """
    module = find_module(read_modules(folder), "Transformer")
    return folder / module.path if module and module.path else folder


def transformer_config(folder: Path) -> dict[str, Any]:
    """Read the settings of the Transformer module (max_seq_length, do_lower_case) under any of its names.

    Without modules.json sentence-transformers does not read them, and neither is done here.

    Raises:
        InputError: as for `read_modules`, or the file is not a JSON object.
    """
    if not (folder / MODULES).is_file():
        return {}
    inner = transformer_folder(folder)
    files = [inner / name for name in _TRANSFORMER_CONFIGS if (inner / name).is_file()]
    return next((values for file in files if (values := _read_object(file))), {})


def _read_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(file)) from error
    if not isinstance(values, dict):
        raise InputError("is not a JSON object.", where=str(file))
    return values


def _require_inside(module: StModule, file: Path) -> None:
    path = module.path
    if not isinstance(path, str) or not isinstance(module.type, str):
        raise InputError(f"module {module.idx}: path and type are not texts.", where=str(file))
    parts = PureWindowsPath(path)  # splits at both kinds of slashes, and finds drives
    if parts.anchor or ".." in parts.parts or "\0" in path:
        raise InputError(f"names the path {path!r}, which leaves the model's folder.", where=str(file))


def _require_config(module: StModule, folder: Path) -> None:
    if module.kind in _WITH_CONFIG and not (folder / module.path / "config.json").is_file():
        raise InputError(
            f"{MODULES} names it as the {module.kind} module, and it has no config.json.",
            where=str(folder / module.path),
            fix="Copy or download the whole model, with the folder of every module.",
        )

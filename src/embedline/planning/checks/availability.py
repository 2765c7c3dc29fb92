"""Data and models that a config names and this machine lacks; pinning stops at the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.data.sources import source_files
from embedline.errors import InputError
from embedline.quoting import home_expanded


def missing(config: RunConfig, root: Path) -> list[str]:
    """List what is missing, one line a kind: sources, passages, evaluation sets, models. Nothing is fetched.

    Args:
        root: the folder that relative paths start from.
    """
    sources = [item.path for item in config.data.sources]
    passages = [item.path for item in config.data.corpus]
    sets = [item.path for item in config.data.evaluation]
    lines = [
        _line("data.sources", sources, [path for path in sources if not _has_source(path, root)]),
        _line("data.corpus", passages, [path for path in passages if not _has_source(path, root)]),
        _line("data.evaluation", sets, [path for path in sets if not (root / home_expanded(path)).is_dir()]),
    ]
    models = {"model.base": config.model.base, "teacher.model": config.teacher and config.teacher.model}
    lines += [f"{key}: {name}" for key, name in models.items() if name and not _has_model(name, root)]
    return [line for line in lines if line]


def _line(key: str, named: Sequence[str], absent: Sequence[str]) -> str:
    if not absent:
        return ""
    names = list(dict.fromkeys(absent))
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{key}: {len(absent)} of {len(named)} ({shown})"


def _has_source(path: str, root: Path) -> bool:
    try:
        return bool(source_files(path, root))
    except InputError:
        return False


def _has_model(name: str, root: Path) -> bool:
    """Return whether a model is a folder, a package's, the demo's, or a hub model fetched before."""
    if name.startswith(("package:", "demo:")) or any(
        path.is_dir() for path in (home_expanded(name), root / name)
    ):
        return True
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return False
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        files = ("config.json", "modules.json")  # the config may lie in 0_Transformer/
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
    except HFValidationError:
        return False

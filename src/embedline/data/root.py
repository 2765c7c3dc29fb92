"""The folder that a config's relative data paths start from."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from pathlib import Path

from filelock import FileLock

from embedline.artifacts.code_version import sources_digest
from embedline.artifacts.durable import put_in_place
from embedline.artifacts.workspace import Workspace
from embedline.config.schema import RunConfig
from embedline.data.demo import write_demo
from embedline.errors import InputError
from embedline.quoting import home_expanded

DEMO = "demo:"


def data_root(config: RunConfig, preset: str, workspace: Workspace) -> Path:
    """Return the folder that relative paths start from.

    data.root as seen from the current folder; when it is empty, the folder of the preset's file (of a shipped
    preset: the current folder). `demo:` or `demo:SEED` stands for data of the shipped generator, written
    once a workspace.
    """
    root = config.data.root
    if root.startswith(DEMO):
        return _demo(root.removeprefix(DEMO), workspace)
    if not root:
        return Path(preset).resolve().parent if Path(preset).suffix in {".yaml", ".yml"} else Path.cwd()
    folder = home_expanded(root)
    if not folder.is_dir():
        raise InputError(
            "is not a folder.", where=f"data.root: {root}", fix="Create it or correct data.root."
        )
    return folder.resolve()


def _demo(seed: str, workspace: Workspace) -> Path:
    if seed and not seed.isdigit():
        raise InputError(
            f"demo:{seed} is not demo: or demo:SEED.", where="data.root", fix="Write demo: alone."
        )
    digest = hashlib.sha256(f"{sources_digest('data.demo.writer')} {seed or 0}".encode()).hexdigest()[:12]
    folder = workspace.internal / "demo" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not folder.is_dir():
            draft = folder.with_name(f".{digest}.{uuid.uuid4().hex[:8]}")
            try:
                write_demo(draft, int(seed or 0))
                put_in_place(draft, folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return folder

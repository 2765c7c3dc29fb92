"""The content-addressed store: `<root>/<step>/<key>/<output>/`, complete or absent, never half-written."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from embedline.artifacts.durable import flush, put_in_place
from embedline.artifacts.manifest import Artifact, read_artifact
from embedline.errors import InputError

_log = logging.getLogger(__name__)


def cache_key(step: str, code: str, config: dict[str, Any], inputs: dict[str, str | None]) -> str:
    """Return the key of a step's outputs: a digest of its code, its settings and its inputs' digests."""
    payload = json.dumps(
        {"step": step, "code": code, "config": config, "inputs": inputs}, sort_keys=True, ensure_ascii=False
    )
    return hashlib.sha256(payload.encode()).hexdigest()[:20]


class Store:
    """The finished outputs by step and key; `writing` makes all outputs of a step appear at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, step: str, key: str, outputs: dict[str, str]) -> dict[str, Artifact] | None:
        """Return the outputs kept under `key` (`outputs`: name → kind); None when they must be made.

        Damaged ones must be made again; they stay until `writing` replaces them.
        """
        folder = self.root / step / key
        if not folder.is_dir():
            return None
        try:
            return {name: read_artifact(folder / name, kind) for name, kind in outputs.items()}
        except InputError as error:
            _log.warning("%s: damaged, will be made again. %s: %s", step, error.where, error.what)
            return None

    @contextmanager
    def writing(self, step: str, key: str, *, replace: bool = False) -> Iterator[Path]:
        """Yield a new folder beside the final one: flushed and renamed on success, removed on failure.

        The caller may remove the folder to keep nothing. Drafts of killed attempts are removed first, and
        what is under the key: hold `lock` meanwhile, and write only what `find` does not find.

        Args:
            replace: keep what is under the key until the new outputs are complete.
        """
        folder = self.root / step / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        for stale in folder.parent.glob(f".{key}.*.draft"):
            shutil.rmtree(stale, ignore_errors=True)
        if not replace:
            shutil.rmtree(folder, ignore_errors=True)
        draft = folder.parent / f".{key}.{uuid.uuid4().hex[:8]}.draft"
        draft.mkdir()
        try:
            yield draft
            if not draft.exists():
                return
            if replace:
                shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():  # another run has made it meanwhile: the first one is kept
                shutil.rmtree(draft)
            else:
                put_in_place(draft, folder)
                flush(folder.parent.parent)  # the step's own folder may be new
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def lock(self, step: str, key: str) -> FileLock:
        """Return the lock of `key`; a step holds it, so that two runs never share a checkpoint folder."""
        folder = self.root / step
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f".{key}.lock")

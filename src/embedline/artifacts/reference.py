"""References: small JSON files that name an artefact of the workspace's store."""

from __future__ import annotations

import json
from pathlib import Path

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import Artifact, read_artifact
from embedline.artifacts.workspace import Workspace
from embedline.errors import InputError


def write_reference(workspace: Workspace, path: Path, kind: str, artifact: Artifact | None) -> None:
    """Write a reference with a path relative to the workspace, which may be moved or mounted elsewhere.

    Args:
        artifact: None when the step passes nothing through.
    """
    folder, digest = (None, None) if artifact is None else (artifact.path, artifact.digest)
    relative = None if folder is None else workspace.reference(folder)
    write_json(path, {"kind": kind, "path": relative, "digest": digest})


def read_reference(workspace: Workspace, path: Path, kind: str) -> Artifact | None:
    """Open the artefact that a reference names; None when the step before passed nothing through.

    Raises:
        InputError: there is no reference, or its artefact is damaged or of another kind.
    """
    if not path.is_file():
        raise InputError("the step before this one wrote no output.", where=str(path))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("the reference is damaged.", where=str(path), fix="Start the run again.") from error
    if not value["path"]:
        return None
    return read_artifact(workspace.root / value["path"], kind, digest=value["digest"])

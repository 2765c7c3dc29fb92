"""A step's config as the parameter of its component: the JSON itself, or a file in the workspace.

A parameter travels in arguments, variables and Kubernetes objects of bounded size (`config.limits`). The
config of a step that reads many sources is longer, and lies in `<run>/steps/<step>/config.json`. Then the
parameter holds the file's place below the workspace and its digest.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import file_sha256
from embedline.artifacts.workspace import Workspace
from embedline.config.limits import STEP_CONFIG, argument_bytes
from embedline.errors import StepError

_FILE = "config.json"


class _ConfigFile(BaseModel):
    """The place of a step's config below the workspace, and its digest."""

    model_config = ConfigDict(extra="forbid")
    config_file: str
    sha256: str


def to_parameter(config_json: str, workspace: Workspace, run: str, step: str) -> str:
    """Return the parameter for a step's config, which is written to a file when it is too long for one."""
    if argument_bytes(config_json) <= STEP_CONFIG:
        return config_json
    file = workspace.step_folder(run, step) / _FILE
    write_json(file, json.loads(config_json))
    place = file.relative_to(workspace.root).as_posix()
    return _ConfigFile(config_file=place, sha256=file_sha256(file)).model_dump_json()


def from_parameter(parameter: str, workspace: Workspace) -> str:
    """Return the config in a parameter that `to_parameter` made, as JSON.

    Raises:
        StepError: the file is missing, or is not the one that preflight wrote.
    """
    try:
        found = _ConfigFile.model_validate_json(parameter)
    except ValidationError:  # the config itself
        return parameter
    file: Path = workspace.root / found.config_file
    if not file.is_file() or file_sha256(file) != found.sha256:
        raise StepError(
            "the step's config is missing or not the one that preflight wrote.",
            where=str(file),
            fix="Start the run again.",
        )
    return file.read_text(encoding="utf-8")

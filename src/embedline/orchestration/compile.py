"""From the DAG to the YAML that a cluster takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from embedline.errors import InputError

DEFAULT_PRESET = "demo"


def compile_pipeline(preset: str, overrides: Sequence[str] = (), workspace: str | None = None) -> str:
    """The pipeline as YAML, with this preset and these overrides as the defaults of its inputs.

    The same arguments give the same bytes.
    """
    compiler, retrain = _kfp()
    # One line: kfp writes defaults into a comment at the head of the file and would break it at a line's end.
    one_line = overrides[0] if len(overrides) == 1 else json.dumps(list(overrides)) if overrides else ""
    values = {"preset": preset, "overrides": one_line}
    if workspace is not None:
        values["workspace"] = workspace
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(retrain, str(path), pipeline_parameters=values)
        return path.read_text(encoding="utf-8")


def golden_path() -> Path:
    """The compiled pipeline that is committed beside the DAG."""
    return Path(str(resources.files("embedline.pipelines.retrain") / "pipeline.yaml"))


def _kfp() -> tuple[Any, Any]:
    try:
        from kfp import compiler
    except ImportError as error:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'") from error
    from embedline.pipelines.retrain.pipeline import retrain

    return compiler, retrain

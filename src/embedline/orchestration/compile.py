"""From the DAG to the YAML that a cluster takes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from embedline.errors import InputError

DEFAULT_PRESET = "demo"


def compile_pipeline(preset: str, overrides: Sequence[str] = (), workspace: str | None = None) -> str:
    """The pipeline as YAML, with this preset and these overrides as the defaults of its inputs.

    The same arguments give the same bytes.
    """
    compiler, retrain = _kfp()
    values = {"preset": preset, "overrides": "\n".join(overrides)}
    if workspace is not None:
        values["workspace"] = workspace
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(retrain, str(path), pipeline_parameters=values)
        return path.read_text(encoding="utf-8")


def golden_path() -> Path:
    """The compiled pipeline that is committed beside the DAG."""
    return Path(str(resources.files("embedline.pipelines.retrain") / "pipeline.yaml"))


def _kfp():  # type: ignore[no-untyped-def]  # kfp has no types
    try:
        from kfp import compiler
    except ImportError as error:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'") from error
    from embedline.pipelines.retrain.pipeline import retrain

    return compiler, retrain

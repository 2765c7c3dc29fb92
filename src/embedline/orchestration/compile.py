"""From the DAG to the YAML that a cluster takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedline.config.cluster import PER_RUN
from embedline.config.load import load_config, preset_text
from embedline.errors import InputError


def compile_pipeline(
    preset: str, overrides: Sequence[str] = (), workspace: str | None = None, *, defaults: bool = True
) -> str:
    """The pipeline as YAML, as this preset with these overrides asks for it on a cluster.

    The same arguments give the same bytes.

    Args:
        workspace: default of the input of that name; else where the preset's cluster.workspace is mounted.
        defaults: preset and overrides are the defaults of their inputs, too; a submitted run brings its own.

    Raises:
        InputError: the config is not valid, kfp is missing, or the workspace is outside the volume.
    """
    config = load_config(preset, overrides)
    place = workspace or config.cluster.workspace.mounted_at
    if config.cluster.workspace.size and not place.startswith(PER_RUN):
        raise InputError(
            f"the engine mounts the volume that it makes for a run at {PER_RUN}, not at {place}.",
            where="cluster.workspace.size",
            fix="Leave the workspace out, or name an existing claim.",
        )
    compiler, retrain_pipeline = _kfp()
    values = {"preset": preset_text(preset), "overrides": one_line(overrides)} if defaults else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        pipeline = retrain_pipeline(config, place)
        compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=values)
        return path.read_text(encoding="utf-8")


def one_line(overrides: Sequence[str]) -> str:
    """Overrides as the pipeline's input takes them.

    One line: kfp writes defaults into a comment at the head of the file and would break it at a line's end.
    """
    if len(overrides) == 1 and overrides[0].isprintable() and overrides[0][:1] not in "[#":
        return overrides[0]
    return json.dumps(list(overrides)) if overrides else ""


def _kfp() -> tuple[Any, Any]:
    try:
        from kfp import compiler
    except ImportError as error:
        raise InputError("kfp is not installed.", fix="pip install 'embedline[pipelines]'") from error
    from embedline.pipelines.retrain.pipeline import retrain_pipeline

    return compiler, retrain_pipeline

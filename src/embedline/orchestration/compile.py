"""Compilation of the DAG to the YAML that a cluster runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedline.config.cluster import PER_RUN
from embedline.config.limits import check_pipeline, check_run_inputs
from embedline.config.load import load_config, preset_text
from embedline.config.secrets import refuse_secrets
from embedline.errors import InputError


def compile_pipeline(
    preset: str, overrides: Sequence[str] = (), workspace: str | None = None, *, defaults: bool = True
) -> str:
    """Compile the pipeline to YAML, with the cluster settings of this preset and these overrides.

    The same arguments give the same bytes.

    Args:
        workspace: default of the pipeline's input `workspace`; else the mount path of cluster.workspace.
        defaults: whether preset and overrides are the defaults of the pipeline's inputs; a submitted run sets
            its own.

    Raises:
        InputError: the config is not valid, kfp is missing, the workspace is outside the volume, or preset or
            pipeline are too large for a cluster.
    """
    config = load_config(preset, overrides)
    check_run_inputs(preset_text(preset), overrides)
    folder = workspace or config.cluster.workspace.mounted_at
    if config.cluster.workspace.size and not folder.startswith(PER_RUN):
        raise InputError(
            f"the engine mounts the volume that it makes for a run at {PER_RUN}, not at {folder}.",
            where="cluster.workspace.size",
            fix="Leave the workspace out, or name an existing claim.",
        )
    compiler, retrain_pipeline = _kfp()
    values = pipeline_texts(preset, overrides) if defaults else {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pipeline.yaml"
        pipeline = retrain_pipeline(config, folder)
        compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=values)
        text = path.read_text(encoding="utf-8")
    check_pipeline(text)
    return text


def pipeline_texts(preset: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return preset and overrides as the pipeline's inputs, which everyone reads who sees a run of it.

    Raises:
        InputError: a secret is in them.
    """
    texts = {"preset": preset_text(preset), "overrides": one_line(overrides)}
    for name, text in texts.items():
        refuse_secrets(text, where=name)
    return texts


def one_line(overrides: Sequence[str]) -> str:
    """Return overrides in one line, as the value of the pipeline's input.

    kfp writes the defaults into a comment at the head of the file, which a line break would end.
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

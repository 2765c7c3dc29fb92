"""evaluate: candidate, champion, base, the stages' models, BM25 and ONNX on held-out sets and mteb tasks.

The step as a whole is never cached; each model's scores are, so that an unchanged champion, base or stage is
not scored again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedline.artifacts.code_version import code_version
from embedline.artifacts.manifest import MANIFEST, Artifact, read_artifact, write_manifest
from embedline.artifacts.scores import ScoreRow, read_scores
from embedline.artifacts.store import cache_key
from embedline.config.evaluation import EvaluateConfig
from embedline.config.fusion import FusionConfig
from embedline.config.model import Prompt
from embedline.config.training import RuntimeConfig
from embedline.data import evaluation_reader
from embedline.evaluation.compare import markdown, stage_inputs
from embedline.evaluation.haystack import GENERATOR
from embedline.evaluation.requests import (
    BASE,
    BM25_DIGEST,
    CHAMPION,
    UNTRAINED,
    ScoringRequest,
    ScoringSettings,
    score_request,
)
from embedline.evaluation.score_files import read_per_query, write_scores
from embedline.evaluation.summary import score_metrics
from embedline.evaluation.untrained import untrained_digest
from embedline.models.layer_work import encoding_work, folder_config
from embedline.models.machine import works_in_bf16
from embedline.models.stated import NOTHING, Stated
from embedline.retrieval.fusion import Fusion
from embedline.steps.context import Context, StepResult


def run(context: Context) -> StepResult:
    """Score every model of the run, each at most once.

    Inputs: the stages' models, `candidate`, `onnx`, `evaluation`; output `scores`.
    """
    settings = _settings(context)
    rows: list[ScoreRow] = []
    tables: list[pa.Table] = []
    finished: dict[tuple[str, str, Stated], tuple[ScoringRequest, Artifact]] = {}
    reused = True
    for request in _requests(context, settings.config):
        same = request.digest, request.runtime, request.stated
        earlier = finished.get(same)
        if earlier and request.is_within(earlier[0]):
            artifact = earlier[1]
        else:
            artifact, cached = _scored(context, request, settings)
            reused &= cached
            finished[same] = request, artifact
        own = request.select(read_scores(artifact.path))
        rows += own
        shown = {(row.set, row.dim, row.head) for row in own}
        tables.append(read_per_query(artifact.path, model=request.role, shown=shown))
    per_query = pa.concat_tables(tables)
    write_scores(context.output("scores"), rows, per_query)
    return StepResult(
        metrics=score_metrics(rows),
        summary=markdown(rows),
        counts={"scores": {"rows": len(rows), "per_query": per_query.num_rows}},
        reused=reused,
    )


def _settings(context: Context) -> ScoringSettings:
    step_config, evaluation = context.step_config, context.artifact("evaluation")
    mteb_root = step_config.locations.get("mteb")
    fusion = step_config.section("fusion", FusionConfig)  # None when the run has none
    return ScoringSettings(
        sets=evaluation.path,
        revision=evaluation.digest[:16],
        config=step_config.section("evaluate", EvaluateConfig),
        runtime=step_config.section("runtime", RuntimeConfig),
        prompts=step_config.section("prompts", dict[str, Prompt]) or {},
        fusion=Fusion(fusion.method, tuple(fusion.legs)) if fusion else None,
        mteb_root=Path(mteb_root) if mteb_root else None,
        trust_remote_code=bool(step_config.config.get("model", {}).get("trust_remote_code", False)),
    )


def _requests(context: Context, config: EvaluateConfig) -> Iterator[ScoringRequest]:
    """List the models to score; the candidate first, because others may be the same model."""
    pins, locations = context.step_config.pins, context.step_config.locations
    sets = tuple(info.name for info in evaluation_reader.read_sets(context.artifact("evaluation").path))
    stage_sets = tuple(config.stage_sets) or sets
    tasks, depths = tuple(config.mteb_tasks), tuple(config.needle_depths)
    candidate, onnx = context.artifact("candidate"), context.inputs["onnx"]
    yield ScoringRequest("candidate", candidate.digest, candidate.path, sets, tasks, depths, all_dims=True)
    if onnx is not None and config.onnx_sets:
        onnx_sets = tuple(config.onnx_sets)
        for runtime, file in (("onnx-fp32", "model.onnx"), ("onnx-int8", "model_int8.onnx")):
            if (onnx.path / file).is_file():
                yield ScoringRequest("candidate", onnx.digest, onnx.path, onnx_sets, runtime=runtime)
    yield ScoringRequest("bm25", BM25_DIGEST, None, sets)
    base, champion, pretrained = pins.get("base"), pins.get("champion"), context.inputs["pretrained"]
    if base and config.score_base:
        yield ScoringRequest(BASE, base, Path(locations["base"]), sets, tasks, stated=_stated_base(context))
    elif not base and pretrained is not None:
        # The baseline: the same architecture with random weights, made from the folder's configuration.
        digest = untrained_digest(pretrained.path)
        yield ScoringRequest(UNTRAINED, digest, pretrained.path, stage_sets, tasks, of_stage=True)
    if champion and config.score_champion:
        yield ScoringRequest(CHAMPION, champion["digest"], Path(locations["champion"]), sets, tasks)
    for name, stage in stage_inputs().items():
        model = context.inputs[name]
        if model is not None and model.manifest.step == stage:  # else the stage is off and passed it through
            yield ScoringRequest(stage, model.digest, model.path, stage_sets, of_stage=True)


def _stated_base(context: Context) -> Stated:
    model = context.step_config.config.get("model", {})
    return Stated(model.get("base_pooling"), model.get("base_causal"))


def _scored(context: Context, request: ScoringRequest, settings: ScoringSettings) -> tuple[Artifact, bool]:
    """Return a model's scores, from the store or made now, and whether they were found there."""
    inputs = {"model": request.digest, "evaluation": context.artifact("evaluation").digest}
    if request.tasks:
        inputs["mteb"] = json.dumps(context.step_config.pins.get("mteb"), sort_keys=True)
    what = _scored_under(context, request, settings)
    key = cache_key("scores", code_version("evaluate"), what, dict(inputs))
    store, outputs = context.workspace.store, {"scores": "scores"}
    with store.lock("scores", key):
        kept = store.find("scores", key, outputs)
        if kept is not None:
            return kept["scores"], True
        with store.writing("scores", key) as draft:
            folder = draft / "scores"
            folder.mkdir()
            _require_unchanged(context, request)
            scores = score_request(request, settings)
            write_scores(folder, scores.rows, scores.per_query)
            write_manifest(folder, kind="scores", step="scores", key=key, inputs=inputs)
        made = store.find("scores", key, outputs)
    assert made is not None
    return made["scores"], False


def _require_unchanged(context: Context, request: ScoringRequest) -> None:
    """Compare what was pinned from outside and is about to be scored with its pin."""
    if request.role == BASE:
        context.outside(BASE)
    if request.role == CHAMPION and request.folder and (request.folder / MANIFEST).is_file():
        read_artifact(request.folder, digest=request.digest or None)
    if request.tasks and "mteb" in context.step_config.locations:
        context.outside("mteb")


def _scored_under(context: Context, request: ScoringRequest, settings: ScoringSettings) -> dict[str, Any]:
    """Return the settings that a model's scores depend on: part of their key."""
    what: dict[str, Any] = {
        "sets": request.sets,
        "tasks": request.tasks,
        "runtime": request.runtime,
        "bootstrap": settings.config.bootstrap,
        "untrained": request.role == UNTRAINED,
    }
    if request.folder is not None:
        work = encoding_work(folder_config(request.folder))
        what["precision"] = "bf16" if works_in_bf16(settings.runtime, work) else "fp32"
        if not request.has_prompts:
            what["prompts"] = context.step_config.config["prompts"]
    if settings.fusion and request.folder is not None:
        what["fusion"] = [settings.fusion.method, settings.fusion.legs]
    if request.stated != NOTHING:
        what["stated"] = [request.stated.pooling, request.stated.causal]
    if request.depths:
        what["needle"] = [GENERATOR, request.depths, settings.config.needle_documents]
    return what

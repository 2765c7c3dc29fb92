"""evaluate: candidate, champion, base, the stages' models, BM25 and ONNX on held-out sets and mteb tasks.

The step as a whole is never cached; each model's scores are, so that an unchanged champion, base or stage is
not scored again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedline.artifacts.code_version import code_version
from embedline.artifacts.manifest import Artifact, write_manifest
from embedline.artifacts.store import cache_key
from embedline.config.evaluation import EvaluateConfig
from embedline.config.model import Prompt
from embedline.config.training import RuntimeConfig
from embedline.data import evaluation_reader
from embedline.evaluation.bm25 import BM25_DIGEST
from embedline.evaluation.compare import BENCHMARK, full_width, heads_table, is_dense, main_table, markdown
from embedline.evaluation.haystack import GENERATOR, set_name
from embedline.evaluation.table import read_per_query, read_rows, write_scores
from embedline.models.machine import works_in_bf16
from embedline.steps.context import Context, StepResult

if TYPE_CHECKING:
    from embedline.evaluation.local import Subject
    from embedline.evaluation.sets import Scores

STAGES = {
    "pretrained": "pretrain",
    "unsupervised": "train_unsupervised",
    "supervised": "train_supervised",
}


@dataclass(frozen=True)
class Wanted:
    """One model to score.

    Args:
        role: `model` in its rows.
        folder: of the model; None for BM25_DIGEST.
        depths: of needles in long documents.
        runtime: torch, onnx-fp32 or onnx-int8.
        all_dims: whether its rows at smaller Matryoshka dims are shown, too.
    """

    role: str
    digest: str
    folder: Path | None
    sets: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    depths: tuple[int, ...] = ()
    runtime: str = "torch"
    all_dims: bool = False

    def asks_no_more_than(self, other: Wanted) -> bool:
        pairs = ((self.sets, other.sets), (self.tasks, other.tasks), (self.depths, other.depths))
        return all(set(ours) <= set(theirs) for ours, theirs in pairs)


def run(context: Context) -> StepResult:
    """Inputs: the stages' models, `candidate`, `onnx`, `evaluation`; output `scores`."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    finished: dict[tuple[str, str], tuple[Wanted, Artifact]] = {}
    reused = True
    for wanted in _wanted(context):
        known = finished.get((wanted.digest, wanted.runtime))
        if known and wanted.asks_no_more_than(known[0]):
            artifact = known[1]
        else:
            artifact, found = _scored(context, wanted)
            reused &= found
            finished[wanted.digest, wanted.runtime] = wanted, artifact
        own = _shown(artifact, wanted)
        rows += own
        shown = {(row["set"], row["dim"], row["head"]) for row in own}
        tables.append(read_per_query(artifact.path, model=wanted.role, shown=shown))
    per_query = pa.concat_tables(tables)
    write_scores(context.output("scores"), rows, per_query)
    return StepResult(
        metrics=_metrics(rows),
        summary=markdown(rows),
        counts={"scores": {"rows": len(rows), "per_query": per_query.num_rows}},
        reused=reused,
    )


def _wanted(context: Context) -> Iterator[Wanted]:
    """Who is scored on what; the candidate first, because others may turn out to be the same model."""
    config = context.step_config.section("evaluate", EvaluateConfig)
    pins, places = context.step_config.pins, context.step_config.locations
    sets = tuple(info.name for info in evaluation_reader.read_sets(context.artifact("evaluation").path))
    stage_sets = tuple(config.stage_sets) or sets
    tasks = tuple(config.mteb_tasks)
    candidate, onnx = context.artifact("candidate"), context.inputs["onnx"]
    depths = tuple(config.needle_depths)
    yield Wanted("candidate", candidate.digest, candidate.path, sets, tasks, depths, all_dims=True)
    if onnx is not None and config.onnx_sets:
        for variant, file in (("fp32", "model.onnx"), ("int8", "model_int8.onnx")):
            if (onnx.path / file).is_file():
                yield Wanted(
                    "candidate", onnx.digest, onnx.path, tuple(config.onnx_sets), runtime=f"onnx-{variant}"
                )
    yield Wanted("bm25", BM25_DIGEST, None, sets)
    base, champion = pins.get("base"), pins.get("champion")
    pretrained = context.inputs["pretrained"]
    if base and config.score_base:
        yield Wanted("base", base, Path(places["base"]), sets, tasks)
    elif not base and pretrained is not None:
        from embedline.evaluation.untrained import untrained_digest

        yield Wanted("untrained", untrained_digest(pretrained.path), pretrained.path, stage_sets)
    if champion and config.score_champion:
        yield Wanted("champion", champion["digest"], Path(places["champion"]), sets, tasks)
    for name, stage in STAGES.items():
        model = context.inputs[name]
        if model is not None and model.manifest.step == stage:  # else the stage is off and handed it on
            yield Wanted(stage, model.digest, model.path, stage_sets)


def _scored(context: Context, wanted: Wanted) -> tuple[Artifact, bool]:
    """A model's scores from the store, or made now; and whether they were found."""
    config = context.step_config.section("evaluate", EvaluateConfig)
    evaluation = context.artifact("evaluation")
    neural = wanted.folder is not None
    what: dict[str, Any] = {
        "sets": wanted.sets,
        "tasks": wanted.tasks,
        "runtime": wanted.runtime,
        "bootstrap": config.bootstrap,
        "untrained": wanted.role == "untrained",
    }
    if neural:
        bf16 = works_in_bf16(context.step_config.section("runtime", RuntimeConfig))
        what["precision"] = "bf16" if bf16 else "fp32"
        if not _has_card(wanted):
            what["prompts"] = context.step_config.config["prompts"]
    inputs = {"model": wanted.digest, "evaluation": evaluation.digest}
    if wanted.depths:
        what["needle"] = [GENERATOR, wanted.depths, config.needle_documents]
    if wanted.tasks:
        inputs["mteb"] = json.dumps(context.step_config.pins.get("mteb"), sort_keys=True)
    key = cache_key("scores", code_version("evaluate"), what, dict(inputs))
    store, outputs = context.workspace.store, {"scores": "scores"}
    with store.lock("scores", key):
        found = store.find("scores", key, outputs)
        if found is not None:
            return found["scores"], True
        with store.writing("scores", key) as draft:
            folder = draft / "scores"
            folder.mkdir()
            scores = _score(context, wanted)
            write_scores(folder, scores.rows, scores.per_query)
            write_manifest(folder, kind="scores", step="scores", key=key, inputs=inputs)
        made = store.find("scores", key, outputs)
    assert made is not None
    return made["scores"], False


def _score(context: Context, wanted: Wanted) -> Scores:
    from embedline.evaluation.local import score_bm25, score_subject
    from embedline.evaluation.sets import read_sets

    config = context.step_config.section("evaluate", EvaluateConfig)
    evaluation = context.artifact("evaluation")
    sets = read_sets(evaluation.path, list(wanted.sets)) if wanted.sets else []
    about: dict[str, Any] = {"resamples": config.bootstrap, "revision": evaluation.digest[:16]}
    if wanted.folder is None:
        return score_bm25(sets, digest=wanted.digest, **about)
    subject = _subject(context, wanted, config)
    scores = score_subject(subject, sets, **about)
    if wanted.depths:
        from embedline.evaluation.needle import needle_recall

        scores.rows += needle_recall(
            subject, wanted.depths, documents=config.needle_documents, resamples=config.bootstrap
        )
    if wanted.tasks:
        from embedline.evaluation.rumteb import score_tasks

        root = context.step_config.locations.get("mteb")
        scores.rows += score_tasks(subject, wanted.tasks, root=Path(root) if root else None)
    return scores


def _subject(context: Context, wanted: Wanted, config: EvaluateConfig) -> Subject:
    from embedline.evaluation.subjects import onnx_subject, torch_subject
    from embedline.models.machine import attention, prepare
    from embedline.models.prompts import PromptTable

    assert wanted.folder is not None
    runtime = context.step_config.section("runtime", RuntimeConfig)
    who = wanted.role, wanted.digest, wanted.folder
    if wanted.runtime != "torch":
        return onnx_subject(*who, wanted.runtime, batch_tokens=config.batch_tokens, threads=runtime.threads)
    bf16 = prepare(runtime)
    # An outside model says nothing about prompts: it is scored with those that it is trained on with.
    prompts = context.step_config.section("prompts", dict[str, Prompt])
    trusted = bool(context.step_config.config.get("model", {}).get("trust_remote_code", False))
    return torch_subject(
        *who,
        bf16=bf16,
        untrained=wanted.role == "untrained",
        prompts=None if _has_card(wanted) else PromptTable(prompts),
        batch_tokens=config.batch_tokens,
        attention=attention(runtime),
        trust_remote_code=trusted,
    )


def _has_card(wanted: Wanted) -> bool:
    return wanted.folder is not None and (wanted.folder / "embedline.json").is_file()


def _shown(artifact: Artifact, wanted: Wanted) -> list[dict[str, Any]]:
    """The rows of kept scores that this run wants, under the role the model has in it."""
    asked = {*wanted.sets, *wanted.tasks, *map(set_name, wanted.depths)}
    asked |= {BENCHMARK} if wanted.tasks else set()
    rows = [{**row, "model": wanted.role} for row in read_rows(artifact.path) if row["set"] in asked]
    if wanted.all_dims:
        return rows
    width: dict[str, int] = {}
    for row in filter(is_dense, rows):
        width[row["set"]] = max(width.get(row["set"], 0), row["dim"])
    return [row for row in rows if not is_dense(row) or row["dim"] == width[row["set"]]]


def _metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Main scores at full width, `<model>/<set>/main`; of the candidate also their mean over retrieval."""
    metrics: dict[str, float] = {}
    for (name, _), cells in main_table(rows).items():
        for model, row in cells.items():
            place = f"mteb/{name}" if "mteb " in row["revision"] else name
            metrics[f"{model}/{place}/main"] = float(row["value"])
    for name, heads in heads_table(rows).items():
        others = {head: row for head, row in heads.items() if not is_dense(row)}
        metrics |= {f"candidate/{name}/{head}": float(row["value"]) for head, row in others.items()}
    ranked = [r for r in full_width(rows) if r["model"] == "candidate" and r["kind"] == "retrieval"]
    values = [float(r["value"]) for r in ranked if r["runtime"] == "torch"]
    if values:
        metrics["candidate/retrieval_mean"] = sum(values) / len(values)
    return metrics

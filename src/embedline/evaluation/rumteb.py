"""mteb tasks, run by mteb's own task classes, with or without a hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import mteb
from mteb.results import BenchmarkResults, ModelResult

from embedline.errors import InputError, StepError
from embedline.evaluation.compare import BENCHMARK
from embedline.evaluation.local import Subject
from embedline.evaluation.mteb_encoder import MtebEncoder
from embedline.evaluation.sets import score_row

logger = logging.getLogger(__name__)

KINDS = {
    "Retrieval": "retrieval",
    "Reranking": "reranking",
    "STS": "sts",
    "PairClassification": "pairs",
    "BitextMining": "bitext",
    "Classification": "classification",
    "MultilabelClassification": "multilabel",
    "Clustering": "clustering",
}


def score_tasks(subject: Subject, names: Sequence[str], *, root: Path | None = None) -> list[dict[str, Any]]:
    """One row a task (its main score), and the benchmark's mean when all tasks of ruMTEB were asked for.

    Args:
        root: a folder with copies of hub datasets (`ORG/NAME`, hub layout); what it lacks the hub has.

    Raises:
        InputError: mteb has no task of that name.
        StepError: a task's data cannot be had, or mteb failed.
    """
    # Tasks hold a random state that an evaluation moves on: fresh ones each time, or clusterings differ.
    tasks = [_task(name) for name in names]
    datasets.disable_progress_bars()
    encoder = MtebEncoder(subject)
    rows, results = [], []
    for task in tasks:
        with _local_dataset(task, root):
            result, count = _evaluate(encoder, task)
        results.append(result)
        rows.append(_row(encoder, task, float(result.get_score()), count))
    rows += _benchmark_mean(encoder, results)
    return rows


def require_tasks(names: Sequence[str]) -> None:
    """Raises InputError: mteb has no task of one of these names."""
    for name in names:
        _task(name)


def _task(name: str) -> Any:
    """A fresh task: one of ruMTEB with the subsets and splits it has there, others in Russian if possible."""
    for listed in mteb.get_benchmark(BENCHMARK).tasks:
        if listed.metadata.name == name:
            return mteb.get_task(name, hf_subsets=listed.hf_subsets, eval_splits=listed.eval_splits)
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        raise InputError(
            f"mteb {version('mteb')} has no task {name!r}.",
            where="evaluate.mteb_tasks",
            fix=str(error.args[0]),
        ) from error
    if task.metadata.is_multilingual and "rus" in task.metadata.languages:
        return mteb.get_task(name, languages=["rus"])
    return task


@contextmanager
def _local_dataset(task: Any, root: Path | None) -> Iterator[None]:
    """Point the task's class at a local copy, if there is one.

    On the class, because `unload_data()` undoes it on the object. With a cache of its own: `datasets` keeps a
    local folder by its name and README alone, and would give the rows of another copy of the same name.
    """
    dataset = type(task).metadata.dataset
    path, folder = dataset["path"], (root / dataset["path"] if root else None)
    if folder is None or not folder.is_dir():
        yield
        return
    cache = datasets.config.HF_DATASETS_CACHE
    with TemporaryDirectory(prefix="mteb-") as own:
        dataset["path"], datasets.config.HF_DATASETS_CACHE = str(folder.resolve()), own
        try:
            yield
        finally:
            dataset["path"], datasets.config.HF_DATASETS_CACHE = path, cache


def _evaluate(encoder: MtebEncoder, task: Any) -> tuple[Any, int]:
    name = task.metadata.name
    try:
        task.load_data()
        count = _rows_of(task)
        found = mteb.evaluate(
            encoder, task, cache=None, co2_tracker=False, show_progress_bar=False, raise_error=True
        )
    except Exception as error:  # datasets and mteb raise whatever the layer below them raised
        where, first = f"mteb task {name}", (str(error).splitlines() or [""])[0][:300]
        raise StepError(
            f"could not be run ({type(error).__name__}: {first}).",
            where=where,
            fix=f"Its dataset is {task.metadata.dataset['path']}; evaluate.mteb_root may hold a copy.",
        ) from error
    finally:
        if task.data_loaded:
            task.unload_data()
    return found.task_results[0], count


def _rows_of(task: Any) -> int:
    """Rows (queries, for retrieval) that a task scores, counted in the data itself: a copy may be partial."""
    count = 0
    for subset in task.hf_subsets or ["default"]:
        splits = task.dataset.get(subset, task.dataset) if hasattr(task.dataset, "get") else task.dataset
        for split in task.eval_splits:
            data = splits[split]
            count += len(data["queries"] if isinstance(data, dict) else data)
    return count


def _row(encoder: MtebEncoder, task: Any, value: float, count: int) -> dict[str, Any]:
    metadata = task.metadata
    prompt, _ = encoder.asked(metadata, None)
    kind = KINDS.get(metadata.type, metadata.type.lower())
    identity = _identity(encoder, metadata.name, kind, _language(task))
    identity["revision"] = f"{metadata.dataset['revision']} mteb {version('mteb')}"
    identity["prompt"] = repr(prompt) if prompt else ""
    return score_row(identity, metric=metadata.main_score, value=value, main=True, count=count)


def _benchmark_mean(encoder: MtebEncoder, results: Sequence[Any]) -> list[dict[str, Any]]:
    """The leaderboard's Mean(Task), when every task of the benchmark is there."""
    benchmark = mteb.get_benchmark(BENCHMARK)
    scored = {result.task_name for result in results}
    if not {task.metadata.name for task in benchmark.tasks} <= scored:
        return []
    meta = encoder.mteb_model_meta
    model = ModelResult(model_name=meta.name, model_revision=meta.revision, task_results=list(results))
    mean = benchmark.get_score(BenchmarkResults(model_results=[model]))[meta.name]["Mean(Task)"]
    if mean is None:
        return []
    identity = _identity(encoder, BENCHMARK, "benchmark", "ru")
    identity |= {"revision": f"mteb {version('mteb')}", "prompt": ""}
    return [score_row(identity, metric="mean_task", value=float(mean), main=True, count=len(benchmark.tasks))]


def _language(task: Any) -> str:
    """The languages a task scores, in the words of the configuration: ru, en, en-ru."""
    return "-".join(sorted({{"rus": "ru", "eng": "en"}.get(code, code) for code in task.languages}))


def _identity(encoder: MtebEncoder, name: str, kind: str, language: str) -> dict[str, Any]:
    subject = encoder.subject
    return {
        "model": subject.model,
        "digest": subject.digest,
        "set": name,
        "kind": kind,
        "language": language,
        "dim": subject.width,
        "runtime": subject.runtime,
        "head": "dense",
    }

"""mteb tasks, run by mteb's own task classes, with or without a hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import mteb
from mteb.results import BenchmarkResults, ModelResult

from embedline.artifacts.scores import ScoreRow
from embedline.data.hub import plain_name
from embedline.errors import InputError, StepError, first_line
from embedline.evaluation.compare import BENCHMARK
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.mteb_encoder import MtebEncoder

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


def score_tasks(model: EvaluatedModel, names: Sequence[str], *, root: Path | None = None) -> list[ScoreRow]:
    """Score mteb tasks: one row a task, by its main score, and ruMTEB's mean when all its tasks are there.

    Args:
        root: a folder with copies of hub datasets (`ORG/NAME`, hub layout); those it lacks come from the hub.

    Raises:
        InputError: mteb has no task of that name.
        StepError: a task's data cannot be loaded, or mteb failed.
    """
    # An evaluation advances the random state that a task holds: with used tasks clusterings would differ.
    tasks = [_task(name) for name in names]
    datasets.disable_progress_bars()
    encoder = MtebEncoder(model)
    rows, results = [], []
    for task in tasks:
        with _local_dataset(task, root):
            result, count = _evaluate(encoder, task)
        results.append(result)
        rows.append(_row(encoder, task, float(result.get_score()), count))
    rows += _benchmark_mean(encoder, results)
    return rows


def require_tasks(names: Sequence[str]) -> None:
    """Check that mteb has a task of each name.

    Raises:
        InputError: mteb has no task of a name.
    """
    for name in names:
        _task(name)


def _task(name: str) -> Any:
    """Make a fresh task: one of ruMTEB with its subsets and splits there, another in Russian if possible."""
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

    On the class, because `unload_data()` undoes it on the object. With a cache of its own: `datasets` caches
    a local folder by its name and README alone, and would return the rows of another copy of the same name.
    """
    dataset = type(task).metadata.dataset
    path, folder = dataset["path"], (root / dataset["path"] if root else None)
    if folder is None or not folder.is_dir():
        yield
        return
    cache = datasets.config.HF_DATASETS_CACHE
    with TemporaryDirectory(prefix="mteb-") as own, plain_name(folder.resolve()) as plain:
        dataset["path"], datasets.config.HF_DATASETS_CACHE = str(plain), own
        try:
            yield
        finally:
            dataset["path"], datasets.config.HF_DATASETS_CACHE = path, cache


def _evaluate(encoder: MtebEncoder, task: Any) -> tuple[Any, int]:
    name = task.metadata.name
    try:
        task.load_data()
        count = _rows_of(task)
        results = mteb.evaluate(
            encoder, task, cache=None, co2_tracker=False, show_progress_bar=False, raise_error=True
        )
    except Exception as error:  # datasets and mteb pass on any exception of the libraries below
        where, first = f"mteb task {name}", first_line(error)
        raise StepError(
            f"could not be run ({type(error).__name__}: {first}).",
            where=where,
            fix=f"Its dataset is {task.metadata.dataset['path']}; evaluate.mteb_root may hold a copy.",
        ) from error
    finally:
        if task.data_loaded:
            task.unload_data()
    return results.task_results[0], count


def _rows_of(task: Any) -> int:
    """Count the rows (queries, for retrieval) that a task scores, in its data: a copy may be partial."""
    count = 0
    for subset in task.hf_subsets or ["default"]:
        splits = task.dataset.get(subset, task.dataset) if hasattr(task.dataset, "get") else task.dataset
        for split in task.eval_splits:
            data = splits[split]
            count += len(data["queries"] if isinstance(data, dict) else data)
    return count


def _row(encoder: MtebEncoder, task: Any, value: float, count: int) -> ScoreRow:
    metadata = task.metadata
    prompt, _ = encoder.prompt_and_length(metadata, None)
    row = encoder.evaluated.row(
        metadata.name,
        KINDS.get(metadata.type, metadata.type.lower()),
        _language(task),
        revision=f"{metadata.dataset['revision']} mteb {version('mteb')}",
        prompt=repr(prompt) if prompt else "",
        dim=encoder.evaluated.width,
        ignore_identical_ids=getattr(task, "ignore_identical_ids", False),
    )
    return row.scored(metadata.main_score, value, main=True, count=count)


def _benchmark_mean(encoder: MtebEncoder, results: Sequence[Any]) -> list[ScoreRow]:
    """Return the leaderboard's Mean(Task), when every task of the benchmark was scored."""
    benchmark = mteb.get_benchmark(BENCHMARK)
    scored = {result.task_name for result in results}
    if not {task.metadata.name for task in benchmark.tasks} <= scored:
        return []
    meta = encoder.mteb_model_meta
    model = ModelResult(model_name=meta.name, model_revision=meta.revision, task_results=list(results))
    mean = benchmark.get_score(BenchmarkResults(model_results=[model]))[meta.name]["Mean(Task)"]
    if mean is None:
        return []
    row = encoder.evaluated.row(
        BENCHMARK,
        "benchmark",
        "ru",
        revision=f"mteb {version('mteb')}",
        prompt="",
        dim=encoder.evaluated.width,
    )
    return [row.scored("mean_task", mean, main=True, count=len(benchmark.tasks))]


def _language(task: Any) -> str:
    """Return the languages that a task scores, as the configuration names them: ru, en, en-ru."""
    return "-".join(sorted({{"rus": "ru", "eng": "en"}.get(code, code) for code in task.languages}))

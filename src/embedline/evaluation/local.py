"""Scores of an encoder, or of BM25, on laid-out evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from embedline.artifacts.scores import DENSE, ScoreRow
from embedline.evaluation.classification import accuracy, multilabel_accuracy
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.metrics import bitext_metrics, pearson, spearman
from embedline.evaluation.score_files import Scores
from embedline.evaluation.set_results import SetResult, correlation, precision, result_of_means
from embedline.evaluation.sets import (
    LABELLED,
    EvaluationSet,
    RetrievalSet,
    read_labelled,
    read_pairs,
    read_retrieval,
)
from embedline.models.prompts import is_long
from embedline.retrieval.bm25 import BM25
from embedline.vectors.unit import unit

Scorer = Callable[[EvaluatedModel, EvaluationSet, int], list[SetResult]]


def score_model(
    model: EvaluatedModel, sets: Sequence[EvaluationSet], *, resamples: int = 1000, revision: str = ""
) -> Scores:
    """Score one model on every evaluation set and at each of its dims.

    >>> model = load_torch_model("mine", "digest", Path("runs/latest/model"))
    >>> scores = score_model(model, read_sets(Path("evaluation")))
    >>> {row.set: row.value for row in scores.rows if row.main}

    Args:
        resamples: of the 95 % confidence intervals over queries or pairs; none with 0.
        revision: of the sets, for the score rows.
    """
    scores = Scores()
    for evaluation_set in sets:
        row = model.row(
            evaluation_set.name,
            evaluation_set.kind,
            evaluation_set.language,
            revision=revision,
            prompt=_describe(*_prompts(model, evaluation_set)),
            ignore_identical_ids=evaluation_set.ignore_identical_ids,
        )
        by_head = []
        if evaluation_set.kind == "retrieval" and (len(model.heads) > 1 or model.fusion):
            by_head = _other_heads(model, evaluation_set, resamples)  # first: it gives the dense vectors
        for result in [*_scorer(evaluation_set.kind)(model, evaluation_set, resamples), *by_head]:
            scores.add(result.as_scores(row))
    return scores


def score_bm25(
    sets: Sequence[EvaluationSet], *, digest: str, resamples: int = 1000, revision: str = ""
) -> Scores:
    """Score BM25 on the retrieval sets among `sets`."""
    scores = Scores()
    for evaluation_set in sets:
        if evaluation_set.kind != "retrieval":
            continue
        data = _read_retrieval(evaluation_set)
        _, ranking = BM25(data.documents).search(data.queries, data.depth)
        result = result_of_means(DENSE, 0, data.metrics(ranking), "ndcg@10", data.query_ids, resamples)
        row = ScoreRow(
            model="bm25",
            digest=digest,
            set=evaluation_set.name,
            kind=evaluation_set.kind,
            language=evaluation_set.language,
            revision=revision,
            ignore_identical_ids=evaluation_set.ignore_identical_ids,
        )
        scores.add(result.as_scores(row))
    return scores


def _scorer(kind: str) -> Scorer:
    """Return the function that scores a model on a set of this kind."""
    scorers: dict[str, Scorer] = {
        "retrieval": _retrieval,
        "bitext": _bitext,
        "sts": _sts,
        "pairs": _pairs,
        **dict.fromkeys(LABELLED, _labelled),
    }
    return scorers[kind]


def _retrieval(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    from embedline.vectors.search import exact_search

    data = _read_retrieval(of)
    query_prompt, document_prompt = _prompts(model, of)
    queries = model.vectors(data.queries, query_prompt, _query_length(model, of))
    documents = model.vectors(data.documents, document_prompt, model.document_length)
    results = []
    for dim in _dims(model, documents):
        _, ranking = exact_search(unit(queries, dim), unit(documents, dim), data.depth)
        metrics = data.metrics(ranking)
        results.append(result_of_means(DENSE, dim, metrics, "ndcg@10", data.query_ids, resamples))
    return results


def _read_retrieval(of: EvaluationSet) -> RetrievalSet:
    return read_retrieval(of.folder, ignore_identical_ids=of.ignore_identical_ids)


def _other_heads(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    """Score the heads beside dense, and hybrid; dim is the width of the vectors compared, or 0.

    Hybrid is the model's fusion of its heads and BM25; without one, the weighted sum of its heads.
    """
    from embedline.evaluation.heads import HYBRID
    from embedline.evaluation.legs import SearchTexts, search_by_head, search_by_leg

    data = _read_retrieval(of)
    length = _query_length(model, of)
    texts = SearchTexts(data.queries, data.documents, *_prompts(model, of), length, data.depth)
    found = search_by_head(model, texts)
    if model.fusion is not None:
        found[HYBRID] = model.fusion.rank(*search_by_leg(model, texts, found), data.depth)
    results = []
    for head, ranking in found.items():
        metrics = data.metrics(ranking.indices)
        dim = model.token_width if head == "multi_vector" else 0
        results.append(result_of_means(head, dim, metrics, "ndcg@10", data.query_ids, resamples))
    return results


def _bitext(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    from embedline.vectors.search import exact_search

    first, second, _ = _pair_vectors(model, of, scored=False)
    ids = [str(i) for i in range(len(first))]
    results = []
    for dim in _dims(model, first):
        _, nearest = exact_search(unit(first, dim), unit(second, dim), 1)
        results.append(result_of_means(DENSE, dim, bitext_metrics(nearest[:, 0]), "f1", ids, resamples))
    return results


def _sts(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    first, second, gold = _pair_vectors(model, of, scored=True)
    results = []
    for dim in _dims(model, first):
        similarity = _similarity(first, second, dim)
        metrics = {"spearman": correlation(spearman, similarity, gold, resamples)}
        metrics["pearson"] = correlation(pearson, similarity, gold, resamples)
        results.append(SetResult(DENSE, dim, metrics, len(gold)))
    return results


def _pairs(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    first, second, gold = _pair_vectors(model, of, scored=True)
    measure = partial(precision, labels=gold, resamples=resamples)
    return [
        SetResult(DENSE, dim, {"ap": measure(_similarity(first, second, dim))}, len(gold))
        for dim in _dims(model, first)
    ]


def _labelled(model: EvaluatedModel, of: EvaluationSet, resamples: int) -> list[SetResult]:
    train, test = read_labelled(of.folder)
    prompt, _ = _prompts(model, of)
    learnt, tested = (model.vectors(part.texts, prompt, model.document_length) for part in (train, test))
    ids = [str(i) for i in range(len(test.texts))]
    results = []
    for dim in _dims(model, tested):
        vectors = unit(learnt, dim), unit(tested, dim)
        if of.kind == "multilabel":
            right = multilabel_accuracy(vectors[0], train.labels, vectors[1], test.labels)
        else:
            one, other = ([label for (label,) in part.labels] for part in (train, test))
            right = accuracy(vectors[0], one, vectors[1], other)
        results.append(result_of_means(DENSE, dim, {"accuracy": right}, "accuracy", ids, resamples))
    return results


def _pair_vectors(
    model: EvaluatedModel, of: EvaluationSet, *, scored: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = read_pairs(of.folder, scored=scored)
    prompt, _ = _prompts(model, of)
    first, second = (
        model.vectors(texts, prompt, model.document_length) for texts in (pairs.first, pairs.second)
    )
    return first, second, pairs.scores


def _similarity(first: np.ndarray, second: np.ndarray, dim: int) -> np.ndarray:
    similarity: np.ndarray = (unit(first, dim) * unit(second, dim)).sum(1).astype(np.float64)
    return similarity


def _query_length(model: EvaluatedModel, of: EvaluationSet) -> int:
    return model.document_length if is_long("query", of.task_type) else model.query_length


def _dims(model: EvaluatedModel, vectors: np.ndarray) -> list[int]:
    width = vectors.shape[1]
    return sorted({width, *(dim for dim in model.dims if dim < width)}, reverse=True)


def _prompts(model: EvaluatedModel, of: EvaluationSet) -> tuple[str, str]:
    query = model.prompts.prompt("query", name=of.name, task_type=of.task_type)
    if of.kind != "retrieval":  # both texts of a pair get the same prompt, whatever their task type
        return query, query
    return query, model.prompts.prompt("document", name=of.name, task_type=of.task_type)


def _describe(query: str, document: str) -> str:
    if not (query or document):
        return ""
    return repr(query) if query == document else f"{query!r} / {document!r}"

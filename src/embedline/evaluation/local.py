"""Scores of an encoder, or of BM25, on laid-out evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from embedline.evaluation.bootstrap import Interval, interval_of, interval_of_mean
from embedline.evaluation.metrics import (
    DEPTH,
    average_precision,
    bitext_metrics,
    pearson,
    ranking_metrics,
    spearman,
)
from embedline.evaluation.sets import (
    LONG_QUERIES,
    SYMMETRIC,
    EvaluationSet,
    Scores,
    read_pairs,
    read_retrieval,
    score_row,
)
from embedline.models.prompts import PromptTable


class Encoder(Protocol):
    """Whatever turns texts into vectors (N × D): an Embedder, an ONNX runtime."""

    def encode(
        self, texts: Sequence[str], *, prompt: str, max_length: int, batch_tokens: int
    ) -> np.ndarray: ...


@dataclass
class Subject:
    """A model under evaluation and what it wants to be told about its inputs.

    Args:
        model, digest, runtime: as they stand in its score rows.
        dims: widths to score, from one encoding; the full width is added.
    """

    model: str
    digest: str
    encoder: Encoder
    prompts: PromptTable = field(default_factory=PromptTable)
    query_length: int = 64
    document_length: int = 256
    dims: tuple[int, ...] = ()
    runtime: str = "torch"
    batch_tokens: int = 8192
    _known: dict[tuple[str, int], tuple[dict[str, int], list[np.ndarray]]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The full width; 0 before anything was encoded."""
        return next((blocks[0].shape[1] for _, blocks in self._known.values() if blocks), 0)

    def vectors(self, texts: Sequence[str], prompt: str, max_length: int) -> np.ndarray:
        """Vectors of length one (N × D); what was seen before at this length is not encoded again."""
        places, blocks = self._known.setdefault((prompt, max_length), ({}, []))
        new = [text for text in dict.fromkeys(texts) if text not in places]
        if new:
            encoded = self.encoder.encode(
                new, prompt=prompt, max_length=max_length, batch_tokens=self.batch_tokens
            )
            places.update(zip(new, range(len(places), len(places) + len(new)), strict=True))
            blocks[:] = [np.concatenate([*blocks, unit(np.asarray(encoded, np.float32))])]
        return blocks[0][[places[text] for text in texts]] if blocks else np.zeros((0, 0), np.float32)


def unit(vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """The first `dim` components, scaled to length one: what a Matryoshka model is cut to (Kusupati 2022)."""
    cut = vectors[:, :dim]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    scaled: np.ndarray = cut / np.maximum(lengths, 1e-12)
    return scaled


def score_subject(
    subject: Subject, sets: Sequence[EvaluationSet], *, resamples: int = 1000, revision: str = ""
) -> Scores:
    """Score one model on every set and dim, with 95 % confidence intervals over queries or pairs."""
    scores = Scores()
    for evaluation_set in sets:
        scorer = {"retrieval": _retrieval, "bitext": _bitext}.get(evaluation_set.kind, _pairs)
        for dim, result in scorer(subject, evaluation_set, resamples):
            identity = _identity(subject.model, subject.digest, evaluation_set, revision)
            identity |= {"dim": dim, "runtime": subject.runtime, "head": "dense"}
            identity["prompt"] = _describe(*_prompts(subject, evaluation_set))
            scores.add(result.as_scores(identity))
    return scores


def score_bm25(
    sets: Sequence[EvaluationSet], *, digest: str, resamples: int = 1000, revision: str = ""
) -> Scores:
    """BM25's scores on the retrieval sets among `sets`."""
    from embedline.evaluation.bm25 import BM25

    scores = Scores()
    for evaluation_set in sets:
        if evaluation_set.kind != "retrieval":
            continue
        data = read_retrieval(evaluation_set.folder)
        _, ranking = BM25(data.documents).search(data.queries, DEPTH)
        identity = _identity("bm25", digest, evaluation_set, revision)
        identity |= {"dim": 0, "runtime": "torch", "head": "dense", "prompt": ""}
        metrics = ranking_metrics(ranking, data.relevant)
        scores.add(_of_means(metrics, "ndcg@10", data.query_ids, resamples).as_scores(identity))
    return scores


@dataclass(frozen=True)
class _Result:
    """A set's metrics (value and interval) at one dim; the first one is the main score."""

    metrics: dict[str, tuple[float, Interval]]
    count: int
    query_ids: list[str] = field(default_factory=list)
    per_query: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def as_scores(self, identity: dict[str, Any]) -> Scores:
        main = next(iter(self.metrics))
        rows = [
            score_row(
                identity, metric=name, value=value, main=name == main, interval=between, count=self.count
            )
            for name, (value, between) in self.metrics.items()
        ]
        shared = {key: identity[key] for key in ("model", "set", "dim", "runtime")}
        values = zip(self.query_ids, self.per_query.tolist(), strict=True)
        return Scores(rows, [{**shared, "query_id": query, "value": value} for query, value in values])


def _retrieval(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[int, _Result]]:
    from embedline.vectors.search import exact_search

    data = read_retrieval(of.folder)
    query_prompt, document_prompt = _prompts(subject, of)
    length = subject.document_length if of.task_type in LONG_QUERIES else subject.query_length
    queries = subject.vectors(data.queries, query_prompt, length)
    documents = subject.vectors(data.documents, document_prompt, subject.document_length)
    results = []
    for dim in _dims(subject, documents):
        _, ranking = exact_search(unit(queries, dim), unit(documents, dim), DEPTH)
        metrics = ranking_metrics(ranking, data.relevant)
        results.append((dim, _of_means(metrics, "ndcg@10", data.query_ids, resamples)))
    return results


def _bitext(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[int, _Result]]:
    from embedline.vectors.search import exact_search

    first, second, _ = _pair_vectors(subject, of, scored=False)
    ids = [str(i) for i in range(len(first))]
    results = []
    for dim in _dims(subject, first):
        _, nearest = exact_search(unit(first, dim), unit(second, dim), 1)
        results.append((dim, _of_means(bitext_metrics(nearest[:, 0]), "f1", ids, resamples)))
    return results


def _pairs(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[int, _Result]]:
    first, second, gold = _pair_vectors(subject, of, scored=True)
    results = []
    for dim in _dims(subject, first):
        similarity = (unit(first, dim) * unit(second, dim)).sum(1).astype(np.float64)
        if of.kind == "sts":
            metrics = {"spearman": _correlation(spearman, similarity, gold, resamples)}
            metrics["pearson"] = _correlation(pearson, similarity, gold, resamples)
        else:
            metrics = {"ap": _precision(similarity, gold, resamples)}
        results.append((dim, _Result(metrics, len(gold))))
    return results


def _pair_vectors(
    subject: Subject, of: EvaluationSet, *, scored: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = read_pairs(of.folder, scored=scored)
    prompt, _ = _prompts(subject, of)
    first, second = (
        subject.vectors(texts, prompt, subject.document_length) for texts in (pairs.first, pairs.second)
    )
    return first, second, pairs.scores


def _correlation(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray, resamples: int
) -> tuple[float, Interval]:
    interval = interval_of(lambda rows: measure(x[rows], y[rows]), len(x), resamples)
    return float(measure(x, y)), interval


def _precision(scores: np.ndarray, labels: np.ndarray, resamples: int) -> tuple[float, Interval]:
    count = len(scores)

    def resampled(rows: np.ndarray) -> np.ndarray:
        shifted = rows + count * np.arange(len(rows))[:, None]
        weights = np.bincount(shifted.ravel(), minlength=rows.size).reshape(rows.shape)
        return average_precision(scores, labels, weights.astype(float))

    return float(average_precision(scores, labels)), interval_of(resampled, count, resamples)


def _of_means(metrics: dict[str, np.ndarray], main: str, ids: list[str], resamples: int) -> _Result:
    named = {main: metrics[main]} | metrics
    values = {name: (float(v.mean()), interval_of_mean(v, resamples)) for name, v in named.items()}
    return _Result(values, len(ids), ids, metrics[main])


def _dims(subject: Subject, vectors: np.ndarray) -> list[int]:
    width = vectors.shape[1]
    return sorted({width, *(dim for dim in subject.dims if dim < width)}, reverse=True)


def _prompts(subject: Subject, of: EvaluationSet) -> tuple[str, str]:
    symmetric = of.task_type in SYMMETRIC or of.kind != "retrieval"
    query = subject.prompts.prompt("query", name=of.name, task_type=of.task_type)
    if symmetric:
        return query, query
    return query, subject.prompts.prompt("document", name=of.name, task_type=of.task_type)


def _describe(query: str, document: str) -> str:
    if not (query or document):
        return ""
    return repr(query) if query == document else f"{query!r} / {document!r}"


def _identity(model: str, digest: str, of: EvaluationSet, revision: str) -> dict[str, Any]:
    about = {"set": of.name, "kind": of.kind, "language": of.language, "revision": revision}
    return {"model": model, "digest": digest, **about}

"""Scores of an encoder, or of BM25, on laid-out evaluation sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

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
    LABELLED,
    EvaluationSet,
    Scores,
    read_labelled,
    read_pairs,
    read_retrieval,
    score_row,
)
from embedline.models.prompts import PromptTable, is_long
from embedline.vectors.unit import unit

if TYPE_CHECKING:
    from embedline.models.head_vectors import HeadVectors


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
        heads: that the model has; those beside dense need an encoder with `encode_heads`.
        hybrid: weight of each head in the hybrid score.
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
    heads: tuple[str, ...] = ("dense",)
    hybrid: Mapping[str, float] = field(default_factory=dict)
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
            how: Any = {"prompt": prompt, "max_length": max_length, "batch_tokens": self.batch_tokens}
            self._keep(new, self.encoder.encode(new, **how), prompt, max_length)
        blocks[:] = [np.concatenate(blocks)] if len(blocks) > 1 else blocks
        return blocks[0][[places[text] for text in texts]] if blocks else np.zeros((0, 0), np.float32)

    def head_vectors(self, texts: Sequence[str], prompt: str, max_length: int) -> HeadVectors:
        """What all heads give for `texts`; of this only the dense vectors are kept for `vectors`."""
        encoder: Any = self.encoder
        found: HeadVectors = encoder.encode_heads(
            texts, prompt=prompt, max_length=max_length, batch_tokens=self.batch_tokens
        )
        self._keep(texts, found.dense, prompt, max_length)
        return found

    def token_counts(self, texts: Sequence[str], prompt: str, max_length: int) -> list[int]:
        """Tokens of each text, prompt and special ones included."""
        encoder: Any = self.encoder
        counts: list[int] = []
        for at in range(0, len(texts), 4096):
            rows = encoder.tokenize(texts[at : at + 4096], prompt=prompt, max_length=max_length)
            counts += [len(row) for row in rows]
        return counts

    def _keep(self, texts: Sequence[str], vectors: np.ndarray, prompt: str, max_length: int) -> None:
        places, blocks = self._known.setdefault((prompt, max_length), ({}, []))
        fresh = {text: i for i, text in enumerate(texts) if text not in places}
        if fresh:
            places.update(zip(fresh, range(len(places), len(places) + len(fresh)), strict=True))
            blocks.append(unit(np.asarray(vectors, np.float32)[list(fresh.values())]))


def score_subject(
    subject: Subject, sets: Sequence[EvaluationSet], *, resamples: int = 1000, revision: str = ""
) -> Scores:
    """Score one model on every set and dim, with 95 % confidence intervals over queries or pairs."""
    scores = Scores()
    for evaluation_set in sets:
        identity = _identity(subject.model, subject.digest, evaluation_set, revision)
        identity |= {"runtime": subject.runtime, "prompt": _describe(*_prompts(subject, evaluation_set))}
        by_head = []
        if evaluation_set.kind == "retrieval" and len(subject.heads) > 1:
            by_head = _other_heads(subject, evaluation_set, resamples)  # first: it gives the dense vectors
        scorers = {"retrieval": _retrieval, "bitext": _bitext} | dict.fromkeys(LABELLED, _labelled)
        scorer = scorers.get(evaluation_set.kind, _pairs)
        dense = [("dense", dim, result) for dim, result in scorer(subject, evaluation_set, resamples)]
        for head, dim, result in [*dense, *by_head]:
            scores.add(result.as_scores({**identity, "dim": dim, "head": head}))
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
        shared = {key: identity[key] for key in ("model", "set", "dim", "runtime", "head")}
        values = zip(self.query_ids, self.per_query.tolist(), strict=True)
        return Scores(rows, [{**shared, "query_id": query, "value": value} for query, value in values])


def _retrieval(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[int, _Result]]:
    from embedline.vectors.search import exact_search

    data = read_retrieval(of.folder)
    query_prompt, document_prompt = _prompts(subject, of)
    length = _query_length(subject, of)
    queries = subject.vectors(data.queries, query_prompt, length)
    documents = subject.vectors(data.documents, document_prompt, subject.document_length)
    results = []
    for dim in _dims(subject, documents):
        _, ranking = exact_search(unit(queries, dim), unit(documents, dim), DEPTH)
        metrics = ranking_metrics(ranking, data.relevant)
        results.append((dim, _of_means(metrics, "ndcg@10", data.query_ids, resamples)))
    return results


def _other_heads(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[str, int, _Result]]:
    """Metrics of the heads beside dense, and of hybrid; with the width of the vectors compared, or 0."""
    from embedline.evaluation.heads import blocks, rank_by_head

    data = read_retrieval(of.folder)
    query_prompt, document_prompt = _prompts(subject, of)
    queries = subject.head_vectors(data.queries, query_prompt, _query_length(subject, of))
    documents = (
        subject.head_vectors(data.documents[block], document_prompt, subject.document_length)
        for block in blocks(subject.token_counts(data.documents, document_prompt, subject.document_length))
    )
    width = max((tokens.shape[1] for tokens in queries.tokens or []), default=0)
    results = []
    for head, ranking in rank_by_head(queries, documents, subject.hybrid, DEPTH).items():
        metrics = ranking_metrics(ranking, data.relevant)
        dim = width if head == "multi_vector" else 0
        results.append((head, dim, _of_means(metrics, "ndcg@10", data.query_ids, resamples)))
    return results


def _query_length(subject: Subject, of: EvaluationSet) -> int:
    return subject.document_length if is_long("query", of.task_type) else subject.query_length


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


def _labelled(subject: Subject, of: EvaluationSet, resamples: int) -> list[tuple[int, _Result]]:
    from embedline.evaluation.classification import accuracy, multilabel_accuracy

    train, test = read_labelled(of.folder)
    prompt, _ = _prompts(subject, of)
    learnt, asked = (subject.vectors(part.texts, prompt, subject.document_length) for part in (train, test))
    ids = [str(i) for i in range(len(test.texts))]
    results = []
    for dim in _dims(subject, asked):
        vectors = unit(learnt, dim), unit(asked, dim)
        if of.kind == "multilabel":
            right = multilabel_accuracy(vectors[0], train.labels, vectors[1], test.labels)
        else:
            one, other = ([label for (label,) in part.labels] for part in (train, test))
            right = accuracy(vectors[0], one, vectors[1], other)
        results.append((dim, _of_means({"accuracy": right}, "accuracy", ids, resamples)))
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
    query = subject.prompts.prompt("query", name=of.name, task_type=of.task_type)
    if of.kind != "retrieval":  # pairs are not told apart, whatever their task type
        return query, query
    return query, subject.prompts.prompt("document", name=of.name, task_type=of.task_type)


def _describe(query: str, document: str) -> str:
    if not (query or document):
        return ""
    return repr(query) if query == document else f"{query!r} / {document!r}"


def _identity(model: str, digest: str, of: EvaluationSet, revision: str) -> dict[str, Any]:
    about = {"set": of.name, "kind": of.kind, "language": of.language, "revision": revision}
    return {"model": model, "digest": digest, **about}

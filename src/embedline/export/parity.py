"""Measurement of the exported models against the torch model: difference of outputs, and speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from embedline.errors import StepError
from embedline.export.parity_result import HeadLimits, HeadParity, Parity, VariantParity
from embedline.export.runtime import MODEL, OnnxEmbedder, Variant
from embedline.models.embedder import Embedder
from embedline.models.head_vectors import HeadVectors, encode_heads
from embedline.vectors.unit import unit

# Texts that real data seldom holds and exports get wrong: nearly empty, odd characters, two languages.
PROBES = (
    ".",
    "а",
    "ok",
    "Как сбросить пароль администратора?",
    "How do I reset the administrator password?",
    "Ошибка 0x80070005: access denied при запуске службы — что делать?",
    "ёЁ й ™ № ½ 😀 e\u0301 \u200b\t",
)
LATENCY_TEXTS = 12
LIMITS: dict[Variant, HeadLimits] = {"fp32": HeadLimits(0.9999, 0.001), "int8": HeadLimits(0.9, 0.2)}


class _Speed(NamedTuple):
    """Speed of torch and of onnxruntime: median ms for one text, seconds for all texts."""

    torch_text_ms: float
    onnx_text_ms: float
    torch_s: float
    onnx_s: float


def measure_parity(
    embedder: Embedder,
    onnx_folder: Path,
    texts: Sequence[str],
    *,
    min_cosine: Mapping[Variant, float],
    limits: Mapping[Variant, HeadLimits] | None = None,
    batch_tokens: int = 8192,
) -> Parity:
    """Compare each variant in `min_cosine` with `embedder` on `texts`, on probes, and on one long text.

    torch and onnxruntime get the same number of threads and take turns, so that a busy machine slows both.

    Args:
        min_cosine: the worst cosine that passes, by variant.
        limits: for the other heads, by variant; LIMITS where a variant is not named.
        batch_tokens: tokens a batch, padding included: bounds the memory.

    Raises:
        StepError: a model gives a vector that is not finite; the text is named.

    Example:
        >>> export_onnx(embedder, Path("onnx"), opset=20)
        >>> parity = measure_parity(embedder, Path("onnx"), texts, min_cosine={"fp32": 0.9999})
        >>> parity.passed, parity.variants["fp32"].worst_cosine
    """
    length = embedder.spec.document_length
    long = " ".join([*texts, *PROBES] * 2) + " слово word" * length
    texts = [*texts, *PROBES, long]
    tokens = sum(map(len, embedder.tokenize(texts, max_length=length)))
    expected = encode_heads(embedder, texts, max_length=length, batch_tokens=batch_tokens)
    _require_finite(expected, texts, "the torch model")
    variants: dict[str, VariantParity] = {}
    for variant, threshold in min_cosine.items():
        runtime = OnnxEmbedder(onnx_folder, variant, threads=torch.get_num_threads())
        exported = runtime.encode_heads(texts, max_length=length, batch_tokens=batch_tokens)
        _require_finite(exported, texts, MODEL[variant])
        other_way = runtime.encode(  # alone where they were in batches, or the reverse
            texts, max_length=length, batch_tokens=batch_tokens, alone=not runtime.alone
        )
        speed = _speed(embedder, runtime, texts, batch_tokens)
        cosines = _cosines(expected.dense, exported.dense)
        by_dim = {
            str(dim): float(_cosines(unit(expected.dense, dim), unit(exported.dense, dim)).min())
            for dim in embedder.spec.dims
        }
        weights = [f for f in onnx_folder.iterdir() if f.name.startswith(MODEL[variant])]
        heads = {"dense": _at_least(float(cosines.min()), threshold)}
        heads |= _other_heads(expected, exported, {**LIMITS, **(limits or {})}[variant])
        variants[variant] = VariantParity(
            worst_cosine=float(cosines.min()),
            mean_cosine=float(cosines.mean()),
            worst_difference=float(np.abs(expected.dense - exported.dense).max()),
            worst_cosine_by_dim=by_dim,
            batch_cosine=float(_cosines(exported.dense, other_way).min()),
            top1=neighbour_overlap(expected.dense, exported.dense, 1),
            top10=neighbour_overlap(expected.dense, exported.dense, 10),
            megabytes=sum(f.stat().st_size for f in weights) / 1e6,
            text_ms=speed.onnx_text_ms,
            tokens_per_s=tokens / speed.onnx_s,
            torch_text_ms=speed.torch_text_ms,
            torch_tokens_per_s=tokens / speed.torch_s,
            threshold=threshold,
            passed=all(head.passed for head in heads.values())
            and min(by_dim.values(), default=1) >= threshold,
            heads=heads,
        )
    return Parity(len(texts), variants)


def _speed(embedder: Embedder, runtime: OnnxEmbedder, texts: Sequence[str], batch_tokens: int) -> _Speed:
    """Time both models on all texts in batches, then on about LATENCY_TEXTS of them one by one."""
    length = embedder.spec.document_length
    torch_s, onnx_s = _seconds(
        lambda: embedder.encode(texts, max_length=length, batch_tokens=batch_tokens),
        lambda: runtime.encode(texts, max_length=length, batch_tokens=batch_tokens),
    )
    timings = [
        _seconds(
            lambda text=text: embedder.encode([text], max_length=length),  # type: ignore[misc]
            lambda text=text: runtime.encode([text], max_length=length),  # type: ignore[misc]
        )
        for text in texts[:: -(-len(texts) // LATENCY_TEXTS)]
    ]
    torch_text_ms = 1000 * median(seconds for seconds, _ in timings)
    return _Speed(torch_text_ms, 1000 * median(seconds for _, seconds in timings), torch_s, onnx_s)


def _other_heads(expected: HeadVectors, exported: HeadVectors, limits: HeadLimits) -> dict[str, HeadParity]:
    """Compare the lexical and the multi-vector head, where the model has them."""
    heads = {}
    if expected.lexical is not None and exported.lexical is not None:
        largest = max((weight for terms in expected.lexical for weight in terms.values()), default=1.0)
        difference = max(
            (
                abs(ours.get(term, 0.0) - others.get(term, 0.0))
                for ours, others in zip(expected.lexical, exported.lexical, strict=True)
                for term in ours.keys() | others.keys()
            ),
            default=0.0,
        )
        share, allowed = difference / largest, limits.lexical_difference
        heads["lexical"] = HeadParity("worst_difference", share, allowed, share <= allowed)
    if expected.tokens is not None and exported.tokens is not None:
        cosines = _cosines(np.concatenate(expected.tokens), np.concatenate(exported.tokens))
        heads["multi_vector"] = _at_least(float(cosines.min(initial=1.0)), limits.token_cosine)
    return heads


def _at_least(cosine: float, threshold: float) -> HeadParity:
    return HeadParity("worst_cosine", cosine, threshold, cosine >= threshold)


def neighbour_overlap(first_ND: np.ndarray, second_ND: np.ndarray, k: int) -> float:
    """Return the mean share of each row's `k` nearest other rows that is the same in both sets (N × D)."""
    k = min(k, len(first_ND) - 1)
    if k < 1:
        return 1.0
    nearest = []
    for vectors in (first_ND, second_ND):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argsort(-scores, axis=1, kind="stable")[:, :k])
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True)]
    return float(np.mean(shared)) / k


def _cosines(first_ND: np.ndarray, second_ND: np.ndarray) -> np.ndarray:
    """Compute cosines row by row, in double precision, of vectors of length 1."""
    cosines: np.ndarray = np.einsum("nd,nd->n", first_ND.astype(np.float64), second_ND.astype(np.float64))
    capped: np.ndarray = np.minimum(cosines, 1.0)
    return capped


def _seconds(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Time two calls alternately, twice each, and return the better time of each in seconds."""
    best = [float("inf"), float("inf")]
    for _ in range(2):
        for i, work in enumerate((first, second)):
            started = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - started)
    return best[0], best[1]


def _require_finite(vectors: HeadVectors, texts: Sequence[str], model: str) -> None:
    for i, text in enumerate(texts):
        terms = list(vectors.lexical[i].values()) if vectors.lexical is not None else []
        tokens = vectors.tokens[i] if vectors.tokens is not None else np.zeros(0)
        if not all(np.isfinite(part).all() for part in (vectors.dense[i], np.array(terms), tokens)):
            raise StepError(f"{model} gives a vector that is not finite for {text[:80]!r}.")

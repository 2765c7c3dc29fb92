"""How far the exported models are from the torch model, and how much faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from embedline.errors import StepError
from embedline.export.runtime import MODEL, OnnxEmbedder, Variant, truncate
from embedline.models.embedder import Embedder
from embedline.models.head_vectors import HeadVectors, encode_heads

# What real texts seldom hold and exports get wrong: next to nothing, odd characters, two languages.
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


@dataclass(frozen=True)
class HeadParity:
    """One head of one exported model against torch fp32.

    Args:
        measure: worst_cosine (dense: over texts; multi_vector: over real tokens) or worst_difference
            (lexical: of any term's weight, as a share of the largest weight in all texts).
        threshold: of `value`; a cosine is at least that, a difference at most.
    """

    measure: str
    value: float
    threshold: float
    passed: bool


@dataclass(frozen=True)
class HeadLimits:
    """What the heads beside the dense one may differ by: see `HeadParity`."""

    token_cosine: float
    lexical_difference: float


LIMITS: dict[Variant, HeadLimits] = {"fp32": HeadLimits(0.9999, 0.001), "int8": HeadLimits(0.9, 0.2)}


@dataclass(frozen=True)
class VariantParity:
    """One exported model against torch fp32; the numbers are the dense head's, where no head is named.

    Args:
        heads: one entry for every head of the model; `passed` covers them all.
        worst_cosine_by_dim: the worst cosine after cutting to each Matryoshka dim, of which `threshold` is
            asked, too.
        top1, top10: share of neighbours that a search among the texts has in common with torch.
        text_ms: median milliseconds for one text alone.
        tokens_per_s: tokens without padding, whole set in batches, best of two passes.
    """

    worst_cosine: float
    mean_cosine: float
    worst_difference: float
    worst_cosine_by_dim: dict[str, float]
    top1: float
    top10: float
    megabytes: float
    text_ms: float
    tokens_per_s: float
    torch_text_ms: float
    torch_tokens_per_s: float
    threshold: float
    passed: bool
    heads: dict[str, HeadParity] = field(default_factory=dict)


@dataclass(frozen=True)
class Parity:
    """All exported variants of one model, measured on `texts` texts (probes included)."""

    texts: int
    variants: dict[str, VariantParity]

    @property
    def passed(self) -> bool:
        return all(variant.passed for variant in self.variants.values())

    def as_json(self) -> dict[str, Any]:
        variants = {name: asdict(variant) for name, variant in self.variants.items()}
        return {"passed": self.passed, "variants": variants, "texts": self.texts}


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
        limits: of the other heads, by variant; LIMITS where a variant is not named.

    Raises:
        StepError: a model gives a vector that is not finite; the text is named.
    """
    length = embedder.spec.document_length
    long = " ".join([*texts, *PROBES] * 2) + " слово word" * length
    texts = [*texts, *PROBES, long]
    tokens = sum(map(len, embedder.tokenize(texts, max_length=length)))
    expected = encode_heads(embedder, texts, max_length=length, batch_tokens=batch_tokens)
    reference = expected.dense
    _require_finite(expected, texts, "the torch model")
    variants: dict[str, VariantParity] = {}
    for variant, threshold in min_cosine.items():
        runtime = OnnxEmbedder(onnx_folder, variant, threads=torch.get_num_threads())
        given = runtime.encode_heads(texts, max_length=length, batch_tokens=batch_tokens)
        found = given.dense
        _require_finite(given, texts, MODEL[variant])
        slow, fast = _seconds(
            lambda: embedder.encode(texts, max_length=length, batch_tokens=batch_tokens),
            lambda runtime=runtime: runtime.encode(texts, max_length=length, batch_tokens=batch_tokens),  # type: ignore[misc]
        )
        singles = texts[:: -(-len(texts) // LATENCY_TEXTS)]
        timings = [
            _seconds(
                lambda text=text: embedder.encode([text], max_length=length),  # type: ignore[misc]
                lambda text=text, runtime=runtime: runtime.encode([text], max_length=length),  # type: ignore[misc]
            )
            for text in singles
        ]
        cosines = _cosines(reference, found)
        by_dim = {
            str(dim): float(_cosines(truncate(reference, dim), truncate(found, dim)).min())
            for dim in embedder.spec.dims
        }
        weights = [f for f in onnx_folder.iterdir() if f.name.startswith(MODEL[variant])]
        heads = {"dense": _at_least(float(cosines.min()), threshold)}
        heads |= _other_heads(expected, given, {**LIMITS, **(limits or {})}[variant])
        variants[variant] = VariantParity(
            worst_cosine=float(cosines.min()),
            mean_cosine=float(cosines.mean()),
            worst_difference=float(np.abs(reference - found).max()),
            worst_cosine_by_dim=by_dim,
            top1=neighbour_overlap(reference, found, 1),
            top10=neighbour_overlap(reference, found, 10),
            megabytes=sum(f.stat().st_size for f in weights) / 1e6,
            text_ms=1000 * median(onnx for _, onnx in timings),
            tokens_per_s=tokens / fast,
            torch_text_ms=1000 * median(torch_s for torch_s, _ in timings),
            torch_tokens_per_s=tokens / slow,
            threshold=threshold,
            passed=all(head.passed for head in heads.values())
            and min(by_dim.values(), default=1) >= threshold,
            heads=heads,
        )
    return Parity(len(texts), variants)


def _other_heads(expected: HeadVectors, given: HeadVectors, limits: HeadLimits) -> dict[str, HeadParity]:
    heads = {}
    if expected.lexical is not None and given.lexical is not None:
        largest = max((weight for terms in expected.lexical for weight in terms.values()), default=1.0)
        difference = max(
            (
                abs(ours.get(term, 0.0) - theirs.get(term, 0.0))
                for ours, theirs in zip(expected.lexical, given.lexical, strict=True)
                for term in ours.keys() | theirs.keys()
            ),
            default=0.0,
        )
        share, allowed = difference / largest, limits.lexical_difference
        heads["lexical"] = HeadParity("worst_difference", share, allowed, share <= allowed)
    if expected.tokens is not None and given.tokens is not None:
        cosines = _cosines(np.concatenate(expected.tokens), np.concatenate(given.tokens))
        heads["multi_vector"] = _at_least(float(cosines.min(initial=1.0)), limits.token_cosine)
    return heads


def _at_least(cosine: float, threshold: float) -> HeadParity:
    return HeadParity("worst_cosine", cosine, threshold, cosine >= threshold)


def neighbour_overlap(first_ND: np.ndarray, second_ND: np.ndarray, k: int) -> float:
    """Share of each row's `k` nearest other rows that both sets of vectors agree on, averaged over rows."""
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
    """Row by row, in double precision, of vectors of length 1."""
    cosines: np.ndarray = np.einsum("nd,nd->n", first_ND.astype(np.float64), second_ND.astype(np.float64))
    capped: np.ndarray = np.minimum(cosines, 1.0)
    return capped


def _seconds(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """The better of two turns each, taken alternately."""
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

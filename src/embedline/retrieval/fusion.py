"""Fusion: one ranking of the documents that several legs found for a query.

A leg is a way to search: dense, lexical, multi_vector (a model's heads) or bm25. Each gives its best
documents with their scores; nothing else of it is needed.

- `convex`: the weighted mean of the legs' normalised scores (Bruch et al. 2022). The weights are a query's
  own: a softmax over the legs of a linear function of its features (`query_features`), with few coefficients
  that are fitted on queries which the training did not see (`fusion_fit`).
- `rrf`: reciprocal rank fusion (Cormack et al. 2009), of ranks alone.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from embedline.artifacts.checked_json import read_checked_json, write_checked_json
from embedline.errors import InputError, first_line

FUSION = "fusion.json"  # in a model folder
BM25_LEG = "bm25"
LEGS = ("dense", "lexical", "multi_vector", BM25_LEG)
FEATURES = ("constant", "match", "known", "script")  # of a query: `query_features`
DEPTH = 100  # documents that a leg gives; the normalisation depends on it
RRF_CONSTANT = 60

Method = Literal["convex", "rrf"]


class Candidates(NamedTuple):
    """The documents that a leg, or a fusion of legs, found for each query.

    Args:
        scores: Q × K, best first.
        indices: Q × K; -1 where there is no further document.
    """

    scores: np.ndarray
    indices: np.ndarray


class Pool(NamedTuple):
    """The documents that any leg found for each query, with a score by each leg.

    Args:
        indices: Q × P, ascending; -1 at the end of shorter rows.
        scores: leg → Q × P.
    """

    indices: np.ndarray
    scores: dict[str, np.ndarray]


def normalise(leg: Candidates) -> np.ndarray:
    """Map a query's scores to 0..1 (Q × K): the best document gets 1, and those not found have 0.

    0 stands below the last document found by the mean step from one document to the next. Equal scores are
    all 1. Whatever a leg's scores are multiplied by, and whatever is added to them, the result is the same.
    """
    found = leg.indices >= 0
    scores = leg.scores.astype(np.float64)
    low = np.where(found, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    high = np.where(found, scores, -np.inf).max(1, keepdims=True, initial=-np.inf)
    varied = high > low
    span = np.where(varied, high - low, 1.0)
    step = span / np.maximum(found.sum(1, keepdims=True) - 1, 1)
    shares = (scores - np.where(varied, low, 0.0) + step) / (span + step)
    return np.where(found, np.where(varied, shares, 1.0), 0.0)


def reciprocal_ranks(leg: Candidates) -> np.ndarray:
    """Return 1 / (60 + rank) of the documents found, and 0 elsewhere (Q × K)."""
    ranks = np.arange(1, leg.indices.shape[1] + 1)
    return np.where(leg.indices >= 0, 1 / (RRF_CONSTANT + ranks), 0.0)


def pooled(legs: Mapping[str, Candidates], method: Method = "convex") -> Pool:
    """Bring the documents of all legs together, with each leg's normalised score; 0 by a leg without it."""
    points = normalise if method == "convex" else reciprocal_ranks
    by_leg = {name: points(leg) for name, leg in legs.items()}
    everything = np.concatenate([leg.indices for leg in legs.values()], axis=1)
    rows = [np.unique(row[row >= 0]) for row in everything]
    width = max(map(len, rows), default=0)
    indices = np.full((len(rows), width), -1, dtype=np.int64)
    scores = {name: np.zeros((len(rows), width)) for name in legs}
    for q, documents in enumerate(rows):
        indices[q, : len(documents)] = documents
        for name, leg in legs.items():
            found = leg.indices[q] >= 0
            scores[name][q, np.searchsorted(documents, leg.indices[q][found])] = by_leg[name][q][found]
    return Pool(indices, scores)


def combined(pool: Pool, weights: Mapping[str, np.ndarray | float], k: int) -> Candidates:
    """Rank the documents of a pool by the weighted sum of their scores, ties by the lower index.

    Args:
        weights: of each leg, one for all queries or one a query (Q).
        k: documents a query.
    """
    total = np.zeros(pool.indices.shape)
    for name, scores in pool.scores.items():
        total += np.broadcast_to(weights[name], len(scores))[:, None] * scores
    total = np.where(pool.indices >= 0, total, -np.inf)
    order = np.argsort(-total, axis=1, kind="stable")[:, :k]
    indices = np.take_along_axis(pool.indices, order, 1)
    return Candidates(np.where(indices >= 0, np.take_along_axis(total, order, 1), 0.0), indices)


# Of models without fitted ones, and where the fit starts from. The heads have BGE-M3's weights, 1 : 0.3 : 1.
# Beside dense, BM25 has 0.62 of the weight where one document has all words of a query, and 0.05 where the
# query is in another script. Chosen on searches of Russian and English documentation.
DEFAULT_COEFFICIENTS: Mapping[str, tuple[float, ...]] = {
    "lexical": (math.log(0.3), 0.0, 0.0, 0.0),
    "multi_vector": (0.0, 0.0, 0.0, 0.0),
    BM25_LEG: (-3.0, 1.0, 0.0, 2.5),
}


@dataclass(frozen=True)
class Fusion:
    """How the legs are fused: the method, and the coefficients of the weights.

    Args:
        legs: that were fitted together; any of them may be missing in a search.
        coefficients: leg → one coefficient a feature, in the order of `FEATURES`; those of dense are 0. Rank
            fusion uses none.
        queries: on which the coefficients were fitted; 0 for the default ones.
        scores: nDCG@10 on these queries: of each leg, with the default coefficients, and with these.

    Example:
        >>> fusion = read_fusion(Path("model")) or Fusion()
        >>> legs = {"dense": Candidates(*exact_search(vectors, documents, DEPTH))}
        >>> legs["bm25"] = Candidates(*bm25.search(queries, DEPTH))
        >>> found = fusion.rank(legs, QueryFeatures(bm25)(queries, legs["bm25"].indices[:, 0]), k=10)
    """

    method: Method = "convex"
    legs: tuple[str, ...] = LEGS
    coefficients: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: DEFAULT_COEFFICIENTS)
    queries: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)

    def weights(self, names: tuple[str, ...], features: np.ndarray) -> dict[str, np.ndarray]:
        """Return each leg's weight in each query (Q); they add up to 1.

        Args:
            names: the legs that are searched.
            features: Q × F.
        """
        none = (0.0,) * len(FEATURES)
        logits = np.stack([features @ np.array(self.coefficients.get(name, none)) for name in names])
        shares = np.exp(logits - logits.max(0))
        return dict(zip(names, shares / shares.sum(0), strict=True))

    def rank(self, legs: Mapping[str, Candidates], features: np.ndarray, k: int) -> Candidates:
        """Fuse what the legs found: the best `k` documents of each query.

        Args:
            legs: by name; those that `self.legs` does not name are left out.
            features: of the queries (Q × F), from `QueryFeatures`.
        """
        used = {name: leg for name, leg in legs.items() if name in self.legs}
        pool = pooled(used, self.method)
        if self.method == "rrf":
            return combined(pool, dict.fromkeys(used, 1.0), k)
        return combined(pool, self.weights(tuple(used), features), k)


def write_fusion(fusion: Fusion, folder: Path) -> None:
    """Write `fusion.json` into a model folder."""
    by_feature = {
        leg: dict(zip(FEATURES, values, strict=True)) for leg, values in fusion.coefficients.items()
    }
    write_checked_json(folder / FUSION, {"format": 1, **asdict(fusion), "coefficients": by_feature})


def copy_fusion(source: Path, target: Path) -> None:
    """Copy the weights of a model folder to one with the same vectors, where there are any."""
    if (source / FUSION).is_file():
        shutil.copyfile(source / FUSION, target / FUSION)


def read_fusion(folder: Path) -> Fusion | None:
    """Read the `fusion.json` of a model folder; None when there is none.

    Raises:
        InputError: the file is damaged, or of a later release.
    """
    path = folder / FUSION
    if not path.is_file():
        return None
    try:
        return _fusion(read_checked_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot be read as weights of a fusion ({first_line(error)}).",
            where=str(path),
            fix="Take the file from the model's source again, or remove it for default weights.",
        ) from error


def _fusion(values: dict[str, Any]) -> Fusion:
    if values["format"] != 1 or values["method"] not in ("convex", "rrf"):
        raise ValueError(f"format {values['format']}, method {values['method']}: not of this release")
    coefficients = {
        leg: tuple(float(by_feature[name]) for name in FEATURES)
        for leg, by_feature in values["coefficients"].items()
    }
    legs, scores = tuple(values["legs"]), {name: float(score) for name, score in values["scores"].items()}
    if unknown := sorted({*legs, *coefficients} - set(LEGS)):
        raise ValueError(f"unknown leg {unknown[0]!r}")
    return Fusion(values["method"], legs, coefficients, int(values["queries"]), scores)

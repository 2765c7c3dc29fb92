"""The spread of a model's vectors: whether unrelated texts get different ones."""

from __future__ import annotations

import numpy as np

from embedline.artifacts.scores import EFFECTIVE_RANK, MEAN_COSINE, UNRELATED, ScoreRow
from embedline.evaluation.evaluated_models import EvaluatedModel

KIND = "spread"
SAMPLE = 1000  # texts: an SVD of that many vectors takes less than a second


def spread_rows(model: EvaluatedModel, *, revision: str = "") -> list[ScoreRow]:
    """Measure mean cosine and effective rank of vectors that a model has made for its evaluation.

    Two texts that were drawn at random are taken as unrelated. Nothing is encoded again.

    Args:
        revision: of the evaluation sets, for the score rows.

    Returns:
        Two rows; none when fewer than two texts were encoded.
    """
    vectors_ND = model.sample(SAMPLE)
    if len(vectors_ND) < 2:
        return []
    row = model.row(UNRELATED, KIND, "", revision=revision, prompt="", dim=vectors_ND.shape[1])
    values = {MEAN_COSINE: mean_cosine(vectors_ND), EFFECTIVE_RANK: effective_rank(vectors_ND)}
    return [row.scored(metric, value, count=len(vectors_ND)) for metric, value in values.items()]


def mean_cosine(vectors_ND: np.ndarray) -> float:
    """Return the mean cosine of all pairs of different vectors (of length one)."""
    count, total_D = len(vectors_ND), vectors_ND.sum(0, dtype=np.float64)
    return float((total_D @ total_D - count) / (count * (count - 1)))


def effective_rank(vectors_ND: np.ndarray) -> float:
    """Return the exponential of the entropy of the normalised singular values (1..min(N, D)).

    Roy and Vetterli 2007, "The effective rank"; as a measure of embeddings RankMe (Garrido et al. 2023,
    arXiv:2210.02885, equation 1). Not a number when a vector is not.
    """
    if not np.isfinite(vectors_ND).all():
        return float("nan")
    values = np.linalg.svd(vectors_ND.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

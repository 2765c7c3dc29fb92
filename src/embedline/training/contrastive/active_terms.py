"""The active terms of a lexical head in training: how many there are, and how their weights differ.

A sparse head fails in two ways. It collapses: the weights of all terms fall to 0, where a ReLU has no
gradient, or only those terms keep a weight that every text has. Or it fills up: all terms weigh the same. The
head of BGE-M3 weighs a text's own terms alone, so a text that fills up has no more active terms than distinct
tokens: the count of active dimensions that is watched in SPLADE does not show it, the evenness of weights
does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedline.errors import StepError
from embedline.models.head_scores import term_matrix
from embedline.training.engine.step_timer import Metrics

MOST_TEXTS = 256  # of each side; a batch's rows are in random order
MOST_EMPTY = 0.5  # share of texts without an active term
MOST_EVEN = 0.99  # at weights with a deviation of a tenth of their mean
_SETTLED = 50  # steps before weights count as trained: until then they may be even
MOST_COMMON = 0.9  # share of the squared weights in terms that nearly all documents have
_NEARLY_ALL = 0.9
_FEW = 8  # documents, or terms: too few for a share to mean something


@torch.no_grad()
def active_terms(ids_NT: Tensor, weights_NT: Tensor, terms_NT: Tensor, count: int) -> Metrics:
    """Measure the terms of at most 256 queries and 256 documents of a batch.

    Args:
        ids_NT: token ids, `count` queries first.
        weights_NT: their weights.
        terms_NT: whether a token is a term: neither special nor padding.

    Returns:
        The curves whose names begin with `lexical_`; means over texts that have a term.
    """
    metrics: Metrics = {}
    empty, evenness = [], []
    for side, rows in (("query", slice(0, count)), ("document", slice(count, None))):
        ids, weights, terms = (each[rows][:MOST_TEXTS] for each in (ids_NT, weights_NT, terms_NT))
        some = terms.any(-1)  # a text without words has nothing to weigh
        vocabulary_V = torch.unique(ids[terms])
        weights_BV = term_matrix(ids[some], weights[some] * terms[some], vocabulary_V)
        active_B = (weights_BV > 0).sum(-1).float()
        if not len(active_B):
            continue
        metrics[f"lexical_{side}_terms"] = active_B.mean()
        metrics[f"lexical_{side}_terms_min"] = active_B.min()
        metrics[f"lexical_{side}_terms_max"] = active_B.max()
        empty.append(active_B == 0)
        if (long_B := active_B >= _FEW).any():
            evenness.append(_evenness(weights_BV[long_B]))
        # A source of labels has the same document many times.
        distinct_BV: Tensor = torch.unique(weights_BV, dim=0)
        if side == "document" and len(distinct_BV) >= _FEW:
            metrics["lexical_common_share"] = _common_share(distinct_BV)
    if empty:
        metrics["lexical_empty_share"] = torch.cat(empty).float().mean()
    if evenness:
        metrics["lexical_evenness"] = torch.cat(evenness).mean()
    return metrics


def _evenness(weights_BV: Tensor) -> Tensor:
    """Return (Σw)² / (n Σw²) over the n active terms of each text (B): 1 where all weigh the same."""
    active_B = (weights_BV > 0).sum(-1)
    return weights_BV.sum(-1).square() / (active_B * weights_BV.square().sum(-1)).clamp(min=1e-12)


def _common_share(weights_BV: Tensor) -> Tensor:
    """Return the share of the squared weights that is in terms of nearly all texts."""
    squares_BV = weights_BV.square()
    common_V = (weights_BV > 0).float().mean(0) >= _NEARLY_ALL
    return squares_BV[:, common_V].sum() / squares_BV.sum().clamp(min=1e-12)


def require_healthy(metrics: Metrics, step: int) -> None:
    """Check the measures of a step's lexical weights.

    Args:
        metrics: as `active_terms` returns them.
        step: the optimizer step, from 0; weights may be even until step 50.

    Raises:
        StepError: the head has collapsed or filled up.
    """
    empty, common, even = (
        float(metrics.get(f"lexical_{name}", 0.0)) for name in ("empty_share", "common_share", "evenness")
    )
    if empty > MOST_EMPTY:
        raise _failure(
            f"the lexical head has collapsed: {empty:.0%} of the texts have no active term",
            step,
            "Lower the learning rate, and let self-distillation begin at once."
            if step
            else "The head of the base is damaged: train from a base without it, which makes a new one.",
        )
    if common > MOST_COMMON:
        raise _failure(
            f"the lexical head has collapsed: {common:.0%} of its weight is on terms that nearly all "
            "documents have",
            step,
            "Lower the learning rate, and clean texts that all documents begin or end with.",
        )
    if step >= _SETTLED and even > MOST_EVEN:
        raise _failure(
            f"the lexical head has filled up: all terms of a text weigh the same (evenness {even:.3f}, at "
            f"most {MOST_EVEN})",
            step,
            "Let self-distillation begin at once, and raise the learning rate if it is below 1e-4; or leave "
            "lexical out of model.heads.",
        )


def _failure(what: str, step: int, fix: str) -> StepError:
    return StepError(f"{what} at step {step + 1}.", where="training", fix=fix)

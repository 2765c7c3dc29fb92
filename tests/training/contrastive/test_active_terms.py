from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from embedline.errors import StepError
from embedline.training.contrastive.active_terms import active_terms, require_healthy


def batch(texts: list[dict[int, float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Texts as {token: weight}, each token twice, the second time with half the weight; 0 is padding."""
    width = 2 * max(map(len, texts)) + 1
    ids, weights = torch.zeros(len(texts), width, dtype=torch.int64), torch.zeros(len(texts), width)
    for row, terms in enumerate(texts):
        for place, (token, weight) in enumerate(terms.items()):
            ids[row, 2 * place : 2 * place + 2] = token
            weights[row, 2 * place : 2 * place + 2] = torch.tensor([weight, weight / 2])
    return ids, weights, ids != 0


def measured(texts: list[dict[int, float]], queries: int) -> dict[str, float]:
    return {name: float(value) for name, value in active_terms(*batch(texts), queries).items()}


def even(first: int, weight: float = 0.5) -> dict[int, float]:
    return {first + i: weight for i in range(10)}


def test_active_terms_are_counted_by_side() -> None:
    queries = [{1: 0.5, 2: 0.0}, {3: 0.2, 4: 0.1, 5: 0.3}, {6: 0.0}, {}]  # the last one has no words
    documents = [{7: 1.0}, {8: 0.0, 9: 0.0}, {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}]
    found = measured([*queries, *documents], len(queries))
    assert found["lexical_query_terms"] == pytest.approx((1 + 3 + 0) / 3)
    assert (found["lexical_query_terms_min"], found["lexical_query_terms_max"]) == (0, 3)
    assert found["lexical_document_terms"] == pytest.approx((1 + 0 + 4) / 3)
    assert (found["lexical_document_terms_min"], found["lexical_document_terms_max"]) == (0, 4)
    assert found["lexical_empty_share"] == pytest.approx(2 / 6)
    assert "lexical_evenness" not in found  # all texts are short
    assert "lexical_common_share" not in found


def test_evenness_and_common_share_equal_their_formulas() -> None:
    random = np.random.default_rng(0)
    documents = [{1: 0.4} | {10 + 20 * i + j: random.random() for j in range(12)} for i in range(9)]
    found = measured([{1: 1.0}, *documents], 1)
    weights = [np.array(list(terms.values())) for terms in documents]
    evenness = [w.sum() ** 2 / (len(w) * (w**2).sum()) for w in weights]
    assert found["lexical_evenness"] == pytest.approx(np.mean(evenness), abs=1e-5)
    squares = sum((w**2).sum() for w in weights)
    assert found["lexical_common_share"] == pytest.approx(9 * 0.4**2 / squares, abs=1e-5)


DISTINCT = [{i * 20 + j: 0.1 + 0.05 * j for j in range(12)} for i in range(1, 17)]
DEAD = [dict.fromkeys(terms, 0.0) for terms in DISTINCT]
SAME = [{9000: 9.0} | terms for terms in DISTINCT]
EVEN = [even(20 * i) for i in range(1, 17)]


@pytest.mark.parametrize(
    ("texts", "step", "message", "fix"),
    [
        (DEAD, 7, r"collapsed: 100% of the texts have no active term at step 8", "Lower the learning rate"),
        (DEAD, 0, "at step 1", "base without it"),
        (SAME, 7, r"collapsed: 9\d% of its weight is on terms that nearly all .* at step 8", "clean"),
        (EVEN, 80, r"filled up: .*\(evenness 1\.000, at most 0\.99\) at step 81", "self-distillation"),
    ],
    ids=["dead", "dead in the base", "same terms", "filled up"],
)
def test_a_head_that_tells_no_texts_apart_stops_the_training(
    texts: Any, step: int, message: str, fix: str
) -> None:
    metrics = active_terms(*batch(texts), 8)
    with pytest.raises(StepError, match=message) as error:
        require_healthy(metrics, step)
    assert fix in str(error.value.fix)


def test_a_healthy_head_passes_and_an_even_one_at_the_start() -> None:
    require_healthy(active_terms(*batch(DISTINCT), 8), 500)
    require_healthy(active_terms(*batch(EVEN), 8), 0)
    require_healthy({}, 500)


def test_one_document_many_times_is_no_collapse() -> None:
    labels = [DISTINCT[0]] * 40 + [DISTINCT[1]]
    assert "lexical_common_share" not in active_terms(*batch([*DISTINCT[:8], *labels]), 8)

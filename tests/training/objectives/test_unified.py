"""The unified loss with masks and missing heads, against a slow loop; against FlagEmbedding: tests/peers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.config.model import HybridWeights
from embedline.training.objectives.infonce import contrastive_loss
from embedline.training.objectives.negatives import NegativeRules
from embedline.training.objectives.unified import unified_loss

TEMPERATURE = 0.05
WEIGHT = {"dense": 1.0, "lexical": 0.1, "multi_vector": 1.0}
HEADS = [
    ("dense", "lexical", "multi_vector"),
    ("dense", "lexical"),
    ("dense", "multi_vector"),
    ("dense",),
]


def made(count: int, negatives: int, seed: int = 0) -> tuple[dict[str, Tensor], NegativeRules]:
    generator = torch.Generator().manual_seed(seed)
    documents = count * (1 + negatives)
    high = {"dense": 1.0, "lexical": 2.0, "multi_vector": 1.0}
    scores = {
        head: torch.rand(count, documents, generator=generator, dtype=torch.float64) * top
        for head, top in high.items()
    }
    owner = torch.tensor([*range(count), *(i for i in range(count) for _ in range(negatives))])
    same = torch.rand(count, documents, generator=generator) < 0.2
    return scores, NegativeRules(owner, same)


def loss(scores: dict[str, Tensor], rules: NegativeRules, **options: Any) -> Tensor:
    return unified_loss(
        scores["dense"],
        scores.get("lexical"),
        scores.get("multi_vector"),
        rules,
        **{"distill": True, "temperature": TEMPERATURE, **options},
    )


def slow(
    scores: dict[str, Tensor], owner: list[int], same: Tensor, *, in_batch: bool, margin: float | None
) -> tuple[float, float]:
    """L and L', one number at a time."""
    table = {head: rows.tolist() for head, rows in scores.items()}
    count, documents = scores["dense"].shape
    weights = {"dense": 1.0, "lexical": 0.3, "multi_vector": 1.0}
    whole = [
        [sum(weights[head] * table[head][i][j] for head in table) for j in range(documents)]
        for i in range(count)
    ]

    def counts(i: int, j: int) -> bool:
        if i == j:
            return True
        if same[i, j] or (not in_batch and owner[j] != i):
            return False
        return margin is None or table["dense"][i][j] <= table["dense"][i][i] + margin

    def log_share(rows: list[list[float]], i: int, j: int) -> float:
        total = sum(math.exp(rows[i][k] / TEMPERATURE) for k in range(documents) if counts(i, k))
        return rows[i][j] / TEMPERATURE - math.log(total)

    def found(rows: list[list[float]]) -> float:
        return -sum(log_share(rows, i, i) for i in range(count)) / count

    def taught(rows: list[list[float]]) -> float:
        return (
            -sum(
                math.exp(log_share(whole, i, j)) * log_share(rows, i, j)
                for i in range(count)
                for j in range(documents)
                if counts(i, j)
            )
            / count
        )

    joint = (found(whole) + sum(WEIGHT[head] * found(table[head]) for head in table)) / (len(table) + 1)
    return joint, sum(WEIGHT[head] * taught(table[head]) for head in table) / len(table)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 5),
    negatives=st.integers(0, 3),
    seed=st.integers(0, 999),
    heads=st.sampled_from(HEADS),
    in_batch=st.booleans(),
    margin=st.sampled_from([None, 0.0, 0.2]),
)
def test_equals_the_slow_definition(
    count: int, negatives: int, seed: int, heads: tuple[str, ...], in_batch: bool, margin: float | None
) -> None:
    everything, rules = made(count, negatives, seed)
    scores = {head: everything[head] for head in heads}
    joint, taught = slow(
        scores, rules.query_index_M.tolist(), rules.known_positives_NM[:], in_batch=in_batch, margin=margin
    )
    rules = replace(rules, in_batch_negatives=in_batch, false_negative_margin=margin)
    assert loss(scores, rules, distill=False).item() == pytest.approx(joint, abs=1e-9)
    assert loss(scores, rules, distill=True).item() == pytest.approx((joint + taught) / 2, abs=1e-9)


@pytest.mark.parametrize("distill", [False, True])
def test_ignored_documents_get_no_gradient_and_no_nan(distill: bool) -> None:
    scores, rules = made(4, 2)
    for rows in scores.values():
        rows.requires_grad_()
    rules.known_positives_NM[:][:, 5] = True
    loss(scores, rules, distill=distill, symmetric=True).backward()
    for rows in scores.values():
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
        assert rows.grad[:, 5].abs().max() == 0
        assert rows.grad[:, :4].diagonal().abs().min() > 0


def test_the_margin_applies_to_cosines_for_all_heads() -> None:
    """A lexical score far above its positive's is no sign of a false negative."""
    scores, rules = made(3, 1)
    rules = replace(rules, known_positives_NM=torch.zeros(3, 6, dtype=torch.bool))
    scores["dense"] = torch.zeros_like(scores["dense"])
    scores["lexical"] = scores["lexical"] * 50
    torch.testing.assert_close(loss(scores, replace(rules, false_negative_margin=0.1)), loss(scores, rules))


def test_the_summed_scores_get_no_gradient_as_the_teacher() -> None:
    """The heads that agree with the sum have nothing to learn from it: only the joint loss moves them."""
    scores, rules = made(4, 1)
    dense = scores["dense"].requires_grad_()
    alone = {"dense": dense}  # its own teacher: cross-entropy to itself, at its minimum
    [taught] = torch.autograd.grad(loss(alone, rules, distill=True), dense)
    [joint] = torch.autograd.grad(loss(alone, rules, distill=False), dense)
    torch.testing.assert_close(taught, joint / 2)


def test_the_dense_head_alone_is_infonce() -> None:
    scores, rules = made(4, 2)
    expected = contrastive_loss(scores["dense"], rules, temperature=TEMPERATURE, symmetric=True)
    torch.testing.assert_close(
        loss({"dense": scores["dense"]}, rules, distill=False, symmetric=True), expected
    )


def test_the_sum_uses_the_hybrid_weights() -> None:
    scores, rules = made(4, 2)
    weights = HybridWeights(dense=0.5, lexical=0.0, multi_vector=2.0)
    ours = loss(scores, rules, distill=False, hybrid=weights)
    whole = 0.5 * scores["dense"] + 2 * scores["multi_vector"]
    parts = [contrastive_loss(rows, rules, temperature=TEMPERATURE) for rows in (whole, *scores.values())]
    torch.testing.assert_close(ours, (parts[0] + parts[1] + 0.1 * parts[2] + parts[3]) / 4)


def test_a_learnable_temperature_gets_a_gradient() -> None:
    scores, rules = made(4, 2)
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=True)
    value = loss(scores, rules, temperature=temperature)
    assert value.item() == pytest.approx(loss(scores, rules).item())
    value.backward()
    assert temperature.grad.abs() > 0

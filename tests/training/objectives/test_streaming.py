"""Losses in blocks of rows against the same losses of the whole matrix, written plainly."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.training.contrastive.known_positives import KnownPositives
from embedline.training.objectives import streaming
from embedline.training.objectives.cosent import ranking_loss
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.objectives.negatives import NegativeRules
from embedline.training.objectives.streaming import row_blocks

WIDTH, TEXTS = 8, "abcdefgh"


def whole_matrix(
    vectors: Tensor,
    count: int,
    owner: Tensor,
    same: Tensor,
    temperature: Tensor,
    *,
    symmetric: bool,
    in_batch: bool,
    margin: float | None,
) -> Tensor:
    """The definition with one N × M matrix, and autograd's own gradient."""
    scores = F.normalize(vectors[:count], dim=-1) @ F.normalize(vectors[count:], dim=-1).T
    own = torch.eye(count, scores.shape[1], dtype=torch.bool)
    out = same.clone()
    if not in_batch:
        out |= owner.unsqueeze(0) != torch.arange(count).unsqueeze(1)
    if margin is not None:
        out |= scores > scores.diagonal().unsqueeze(1) + margin
    logits = (scores / temperature).masked_fill(out & ~own, -torch.inf)
    loss = F.cross_entropy(logits, torch.arange(count))
    if symmetric:
        loss = (loss + F.cross_entropy(logits[:, :count].T, torch.arange(count))) / 2
    return loss


def learnt(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_of_any_size_give_the_loss_and_gradients_of_the_whole_matrix(data: st.DataObject) -> None:
    """Two directions, a trained temperature, the margin, hard negatives, known answers, Matryoshka."""
    count = data.draw(st.integers(2, 9), "queries")
    negatives = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count), "negatives")
    owner = torch.tensor([*range(count), *(i for i, n in enumerate(negatives) for _ in range(n))])
    texts = st.lists(st.sampled_from(TEXTS), min_size=len(owner), max_size=len(owner))
    documents = data.draw(texts, "documents")
    queries = data.draw(st.lists(st.sampled_from(TEXTS), min_size=count, max_size=count), "queries")
    known = KnownPositives(queries, [[text] for text in documents[:count]], documents)
    options: dict[str, Any] = {"symmetric": data.draw(st.booleans(), "symmetric")}
    in_batch = data.draw(st.booleans(), "in batch")
    margin = data.draw(st.sampled_from([None, 0.0, 0.1, 0.5]), "margin")
    at_once = data.draw(st.integers(1, 4 * len(owner)), "scores at once")
    dims = data.draw(st.sampled_from([[WIDTH], [WIDTH, 4, 2]]), "dims")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    vectors = torch.randn(count + len(owner), WIDTH, generator=generator).double().requires_grad_()
    temperature = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    weights = [1.0, 0.5, 0.25][: len(dims)]

    def streamed(part: Tensor) -> Tensor:
        return info_nce(
            part[:count],
            part[count:],
            NegativeRules(owner, known, in_batch_negatives=in_batch, false_negative_margin=margin),
            temperature=temperature,
            **options,
        )

    def plain(part: Tensor) -> Tensor:
        same = known[:]
        return whole_matrix(
            part, count, owner, same, temperature, in_batch=in_batch, margin=margin, **options
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "SCORES_AT_ONCE", at_once)
        ours = learnt(matryoshka(streamed, vectors, dims, weights), vectors, temperature)
    expected = learnt(matryoshka(plain, vectors, dims, weights), vectors, temperature)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_in_single_precision_they_are_within_a_hundred_thousandth_of_the_exact_ones(
    symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SCORES_AT_ONCE", 5_000)
    count = 300
    owner = torch.tensor([*range(count), *range(0, count, 3)])
    same = torch.rand(count, len(owner), generator=torch.Generator().manual_seed(1)) < 0.01
    start = torch.randn(count + len(owner), 64, generator=torch.Generator().manual_seed(0))
    start[count : 2 * count] += start[:count]  # positives that are near, as in training
    found = []
    for kind in (torch.float32, torch.float64):
        vectors = start.to(kind).requires_grad_()
        temperature = torch.tensor(0.05, dtype=kind, requires_grad=True)
        if kind is torch.float32:
            rules = NegativeRules(owner, same, false_negative_margin=0.1)
            loss = info_nce(
                vectors[:count], vectors[count:], rules, temperature=temperature, symmetric=symmetric
            )
        else:
            loss = whole_matrix(
                vectors, count, owner, same, temperature, symmetric=symmetric, in_batch=True, margin=0.1
            )
        found.append([part.double() for part in learnt(loss, vectors, temperature)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_cosents_order_of_all_pairs_does_not_depend_on_its_blocks(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 9))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))).float()
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    scores = torch.randn(count, generator=generator).requires_grad_()
    expected = learnt(ranking_loss(scores, labels), scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "SCORES_AT_ONCE", data.draw(st.integers(1, 40)))
        ours = learnt(ranking_loss(scores, labels), scores)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(rows=st.integers(1, 50), columns=st.integers(1, 50), at_once=st.integers(1, 400))
def test_blocks_are_all_rows_in_order_and_no_larger_than_asked(rows: int, columns: int, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "SCORES_AT_ONCE", at_once)
        seen = row_blocks(rows, columns)
    assert [i for block in seen for i in range(block.start, block.stop)] == list(range(rows))
    assert all((block.stop - block.start) * columns <= max(at_once, columns) for block in seen)


_PEAK = """
import resource, sys, torch
from embedline.training.contrastive.known_positives import KnownPositives
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.negatives import NegativeRules
def step(count):
    texts = [str(i) for i in range(count)]
    known = KnownPositives(texts, [[text] for text in texts], texts)
    vectors = torch.randn(2 * count, 64, requires_grad=True)
    rules = NegativeRules(torch.arange(count), known, false_negative_margin=0.1)
    info_nce(vectors[:count], vectors[count:], rules, temperature=0.02, symmetric=True).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((-step(64) + step(8192)) / 1024)
"""


def test_a_batch_of_8192_needs_less_than_half_of_one_of_its_matrices() -> None:
    """One matrix of scores would be 256 MB, and autograd would hold several."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 128  # MB

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from embedline.models.batching import token_batches
from embedline.models.pooling import POOLING

PEER = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def states_and_mask(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    lengths, width = [7, 1, 4], 7
    mask = torch.zeros(3, width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(width - length, width)] = 1
    return torch.randn(3, width, 8), mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", POOLING)
def test_equals_sentence_transformers(name: str, side: str) -> None:
    states, mask = states_and_mask(side)
    if (
        name == "cls" and side == "left"
    ):  # the peer takes column 0, padding or not: ours is the first real token
        expected = torch.stack([row[m.bool()][0] for row, m in zip(states, mask, strict=True)])
    else:
        peer = Pooling(8, pooling_mode=PEER[name])
        features = {"token_embeddings": states.clone(), "attention_mask": mask}
        expected = peer(features)["sentence_embedding"]
    torch.testing.assert_close(POOLING[name](states, mask), expected)


@pytest.mark.parametrize("name", POOLING)
def test_what_stands_in_padding_does_not_matter(name: str) -> None:
    for side in ("left", "right"):
        states, mask = states_and_mask(side)
        other = torch.where(mask.bool().unsqueeze(-1), states, torch.full_like(states, 1e6))
        torch.testing.assert_close(POOLING[name](states, mask), POOLING[name](other, mask))


@pytest.mark.parametrize("name", POOLING)
def test_vectors_are_fp32_whatever_the_states_are(name: str) -> None:
    states, mask = states_and_mask("right")
    assert POOLING[name](states.bfloat16(), mask).dtype == torch.float32


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 50), max_size=40), batch_tokens=st.integers(1, 200))
def test_batches_hold_each_row_once_within_the_budget(lengths: list[int], batch_tokens: int) -> None:
    batches = token_batches(lengths, batch_tokens)
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    falling = [lengths[row] for row in rows]
    assert falling == sorted(falling, reverse=True)  # the longest first
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(np.asarray(lengths)[batch]) <= max(
            batch_tokens, len(batch)
        )

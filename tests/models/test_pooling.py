from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from embedline.config import model
from embedline.models.batching import token_batches
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.pooling import POOLING, LatentAttention, insert_cls, mcls, without_inserted

PEER = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def states_and_mask(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    lengths, width = [7, 1, 4], 7
    mask = torch.zeros(3, width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(0, length) if side == "right" else slice(width - length, width)] = 1
    return torch.randn(3, width, 8), mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", POOLING)
def test_poolings_equal_sentence_transformers(name: str, side: str) -> None:
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


def test_every_configurable_pooling_is_implemented() -> None:
    assert get_args(model.Pooling) == (*POOLING, "latent", "mcls")


def test_new_pooling_function_is_enough_to_pool_save_and_load(
    make_embedder, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def maximum(states_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        return states_BTD.float().masked_fill(mask_BT.unsqueeze(-1) == 0, -torch.inf).amax(1)

    monkeypatch.setitem(POOLING, "maximum", maximum)
    embedder = make_embedder("bert", "maximum")
    save_embedder(embedder, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "embedline"
    again = load_embedder(tmp_path)
    assert again.spec.pooling == "maximum"
    np.testing.assert_array_equal(again.encode(texts), embedder.encode(texts))
    assert not np.allclose(again.encode(texts), make_embedder("bert").encode(texts))


@pytest.mark.parametrize("name", POOLING)
def test_states_at_padding_do_not_matter(name: str) -> None:
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


@pytest.mark.parametrize("side", ["right", "left"])
def test_latent_attention_does_not_see_padding(side: str) -> None:
    torch.manual_seed(0)
    module = LatentAttention(8, 5, 2)
    states, mask = states_and_mask(side)
    other = torch.where(mask.bool().unsqueeze(-1), states, torch.full_like(states, 1e3))
    torch.testing.assert_close(module(states, mask), module(other, mask))
    for row in range(len(states)):
        real = states[row][mask[row].bool()][None]
        alone = module(real, torch.ones(real.shape[:2], dtype=torch.int64))
        torch.testing.assert_close(module(states, mask)[row], alone[0])


def test_latent_attention_starts_near_the_mean() -> None:
    torch.manual_seed(0)
    module = LatentAttention(64, 16, 8)
    states, mask = torch.randn(3, 7, 64), torch.ones(3, 7, dtype=torch.int64)
    with torch.no_grad():
        cosines = torch.nn.functional.cosine_similarity(module(states, mask), POOLING["mean"](states, mask))
    assert cosines.min() > 0.7


def test_all_of_latent_attention_is_trained() -> None:
    module = LatentAttention(8, 5, 2)
    states, mask = states_and_mask("right")
    module(states, mask).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_latent_attention_is_fp32_and_near_itself_in_bf16() -> None:
    torch.manual_seed(0)
    module = LatentAttention(8, 5, 2)
    states, mask = states_and_mask("right")
    with torch.autocast("cpu", torch.bfloat16):
        half = module(states.bfloat16(), mask)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, module(states, mask), atol=0.1, rtol=0.1)


CLS, PAD = 2, 0


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    every=st.integers(1, 12),
    extra=st.integers(0, 5),
)
def test_a_cls_is_inserted_before_every_block_and_nowhere_else(
    lengths: list[int], every: int, extra: int
) -> None:
    width = max(lengths) + extra
    rows = [[CLS, *range(100, 99 + length)] for length in lengths]
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    new_ids, new_mask = insert_cls(ids, mask, every, cls_id=CLS, pad_id=PAD)
    for row, real, flags in zip(rows, new_ids.tolist(), new_mask.tolist(), strict=True):
        tokens = row[1:]
        expected = [x for at in range(0, len(tokens), every) for x in [CLS, *tokens[at : at + every]]] or [
            CLS
        ]
        assert [x for x, flag in zip(real, flags, strict=True) if flag] == expected
        assert flags == [1] * len(expected) + [0] * (len(flags) - len(expected))  # padded on the right only
        assert set(real[len(expected) :]) <= {PAD}
    assert new_ids.shape[1] <= width + -(-width // every)  # no wider than its CLS tokens make it
    states = torch.randn(*new_ids.shape, 3)
    kept = without_inserted(states, every, ids.shape[1])
    assert kept.shape == (*ids.shape, 3)
    for row, length in enumerate(lengths):
        places = [0, *(at for at, x in enumerate(new_ids[row].tolist()) if x >= 100)]
        torch.testing.assert_close(kept[row, :length], states[row, places])
        marks = [at for at, x in enumerate(new_ids[row].tolist()) if x == CLS and new_mask[row, at]]
        torch.testing.assert_close(mcls(states, new_mask, every)[row], states[row, marks].mean(0))

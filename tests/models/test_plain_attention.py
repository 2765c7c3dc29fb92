from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from embedline.models import plain_attention as kernel
from embedline.models.attention import use_attention
from embedline.models.plain_attention import MAX_TOKENS, plain_attention

SMALL: dict[str, dict[str, Any]] = {
    "bert": {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
    "xlm-roberta": {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
}


def _layer(**values: Any) -> Any:
    return SimpleNamespace(**{"training": True, "is_causal": False, "num_key_value_groups": 1, **values})


def _inputs(rows: int, heads: int, length: int, width: int, groups: int = 1) -> list[Tensor]:
    torch.manual_seed(rows + length)
    shapes = [(rows, heads, length, width)] + [(rows, heads // groups, length, width)] * 2
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 9),
    groups=st.sampled_from([1, 2]),
    masked=st.booleans(),
    scaling=st.sampled_from([None, 0.3]),
)
def test_values_and_gradients_are_those_of_sdpa(
    rows: int, length: int, groups: int, masked: bool, scaling: float | None
) -> None:
    mine = _inputs(rows, 4, length, 8, groups)
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]
    mask = None
    if masked:
        lengths = torch.arange(rows) % length + 1
        mask = (torch.arange(length) < lengths[:, None])[:, None, None, :].expand(rows, 1, length, length)
    layer = _layer(num_key_value_groups=groups)
    found, _ = plain_attention(layer, *mine, mask, scaling=scaling)
    peer, _ = sdpa_attention_forward(layer, *theirs, mask, scaling=scaling, is_causal=False)
    torch.testing.assert_close(found, peer)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (peer * weights).sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_with_dropout_the_gradient_is_that_of_the_values_drawn() -> None:
    query, key, value = _inputs(2, 2, 3, 4)

    def drawn(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(1)
        return plain_attention(_layer(), query, key, value, None, dropout=0.4)[0]

    assert torch.autograd.gradcheck(drawn, (query, key, value))


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(dropout: float) -> None:
    torch.manual_seed(0)
    kept = kernel._kept(torch.Size([1000, 1001]), dropout)
    assert kept.double().mean().item() == pytest.approx(1 - dropout, abs=0.002)
    assert kept.double().mean(0).std().item() == pytest.approx(
        (dropout * (1 - dropout) / 1000) ** 0.5, rel=0.2
    )
    ones = torch.ones(8, 4, 64, 16)
    mixed, _ = plain_attention(_layer(), ones, ones, ones, None, dropout=dropout)
    assert mixed.mean().item() == pytest.approx(1.0, abs=0.1)


def test_the_same_generator_drops_the_same() -> None:
    inputs = _inputs(2, 2, 5, 4)
    torch.manual_seed(3)
    once, _ = plain_attention(_layer(), *inputs, None, dropout=0.5)
    other, _ = plain_attention(_layer(), *inputs, None, dropout=0.5)
    torch.manual_seed(3)
    again, _ = plain_attention(_layer(), *inputs, None, dropout=0.5)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_row_that_sees_no_key_is_finite() -> None:
    inputs = _inputs(1, 1, 3, 4)
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])[None, None]
    mixed, _ = plain_attention(_layer(), *inputs, mask)
    mixed.sum().backward()
    assert mixed.isfinite().all()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize(
    ("layer", "length", "mask"),
    [
        (_layer(training=False), 4, None),
        (_layer(), MAX_TOKENS + 1, None),
        (_layer(is_causal=True), 4, None),
        (_layer(), 4, torch.zeros(1, 1, 4, 4, dtype=torch.float64)),
    ],
    ids=["evaluation", "a long text", "causal without a mask", "a mask of numbers"],
)
def test_unsupported_cases_fall_back_to_sdpa(
    monkeypatch: pytest.MonkeyPatch, layer: Any, length: int, mask: Tensor | None
) -> None:
    inputs = _inputs(1, 1, length, 2)
    monkeypatch.setattr(kernel, "_Attention", None)  # a call to it fails
    found, _ = plain_attention(layer, *inputs, mask)
    peer, _ = sdpa_attention_forward(layer, *inputs, mask)
    assert torch.equal(found, peer)


@pytest.mark.parametrize("family", SMALL)
def test_a_model_trains_with_it_as_with_sdpa(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AutoConfig.for_model(
        family,
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        **{f"{kind}_token_id": 1 for kind in ("pad", "bos", "eos", "cls", "sep")},
        **SMALL[family],
    )
    torch.manual_seed(0)
    peer = AutoModel.from_config(config, attn_implementation="sdpa").double().train()
    mine = copy.deepcopy(peer)
    use_attention(mine, "plain")
    calls = []
    apply = kernel._Attention.apply
    monkeypatch.setattr(kernel._Attention, "apply", lambda *given: calls.append(1) or apply(*given))
    ids = torch.randint(5, 40, (3, 11))
    mask = (torch.arange(11) < torch.tensor([11, 6, 2])[:, None]).long()
    for model in (mine, peer):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        states.square().sum().backward()
    assert len(calls) == 2
    for (name, one), other in zip(mine.named_parameters(), peer.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kinds", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)])
def test_under_autocast_it_computes_in_its_precision(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    """As sdpa does; rotary embeddings leave queries and keys in fp32."""
    rotated, plain = kinds
    inputs = [
        tensor.detach().to(kind)
        for tensor, kind in zip(_inputs(2, 2, 5, 8), (rotated, rotated, plain), strict=True)
    ]
    mine = [tensor.clone().requires_grad_() for tensor in inputs]
    theirs = [tensor.clone().requires_grad_() for tensor in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = plain_attention(_layer(), *mine, None)
        peer, _ = sdpa_attention_forward(_layer(), *theirs, None, is_causal=False)
    assert found.dtype == peer.dtype == torch.bfloat16
    torch.testing.assert_close(found, peer, rtol=0.02, atol=0.02)
    found.float().square().sum().backward()
    peer.float().square().sum().backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0.05, atol=0.05)

"""Masked next tokens against transformers' LlamaForCausalLM, which asks each state for the next token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.training.objectives.mntp import MaskedNextTokenModel
from embedline.training.objectives.prediction import corrupt_tokens

BLANK, VOCABULARY = 17, 320  # a token like any other stands for the hidden ones, as LLM2Vec's "_" does


@pytest.fixture
def peer() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    config.is_causal = False
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def model(peer: LlamaForCausalLM, tokenizer) -> MaskedNextTokenModel:
    made = MaskedNextTokenModel(Embedder(peer.model, tokenizer, EmbedderSpec("last"))).eval()
    made.head.table_VD.data += 0.05 * torch.randn_like(made.head.table_VD)
    return made


def batch(model: MaskedNextTokenModel, share: float = 0.4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, VOCABULARY, (n,), generator=generator).tolist() for n in (9, 4, 12)]
    inputs = model.embedder.pad(rows)
    torch.manual_seed(0)
    masked_ids, targets_BT = corrupt_tokens(
        inputs["input_ids"],
        inputs["attention_mask"].bool(),
        share,
        BLANK,
        vocabulary=VOCABULARY,
        random=0,
        keep=0,
    )
    return {**inputs, "masked_ids": masked_ids, "targets_BT": targets_BT}


def test_equals_the_shifted_loss_of_a_causal_lm(peer, model) -> None:
    peer.lm_head.weight.data.copy_(model.head.table_VD.data)
    given = batch(model)
    labels = given["input_ids"].masked_fill(~given["targets_BT"], -100)
    theirs = peer(input_ids=given["masked_ids"], attention_mask=given["attention_mask"], labels=labels).loss
    ours = model(**given)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    parameters = list(peer.model.parameters())
    for found, expected in zip(
        torch.autograd.grad(ours, [*parameters, model.head.table_VD]),
        torch.autograd.grad(theirs, [*parameters, peer.lm_head.weight]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_hidden_token_is_predicted_from_the_state_before_it(model) -> None:
    given = batch(model)
    target = torch.zeros_like(given["targets_BT"])
    target[2, 5] = True
    states, _ = model.embedder.states(given["masked_ids"], given["attention_mask"])
    logits = model.head.table_VD @ states[2, 4] + model.head.bias_V
    expected = logits.logsumexp(0) - logits[given["input_ids"][2, 5]]
    torch.testing.assert_close(model(**{**given, "targets_BT": target}), expected)


@pytest.mark.parametrize("left", [False, True], ids=["padded on the right", "padded on the left"])
def test_the_first_token_has_no_state_before_it(model, left: bool) -> None:
    given = batch(model)
    if left:
        given = {name: tensor.flip(1) for name, tensor in given.items()}
    first = given["attention_mask"].argmax(1)
    target = torch.zeros_like(given["targets_BT"])
    target[torch.arange(3), first] = True
    assert model(**{**given, "targets_BT": target}).item() == 0.0


def test_its_decoder_looks_to_the_right(model) -> None:
    """What the fixture is for: were it causal, a later token could not help."""
    given = batch(model)
    target = torch.zeros_like(given["targets_BT"])
    target[0, 2] = True
    changed = given["masked_ids"].clone()
    changed[0, 7] += 1
    one, other = (
        model(**{**given, "targets_BT": target, "masked_ids": ids}).item()
        for ids in (given["masked_ids"], changed)
    )
    assert one != other


def test_loss_falls(model, losses_of) -> None:
    losses = losses_of(model, batch(model))
    assert losses[-1] < 0.5 * losses[0]

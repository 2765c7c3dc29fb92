from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from embedline.config.model import DynamicNTK
from embedline.errors import InputError
from embedline.models.positions import extend_positions, max_tokens, require_positions
from embedline.models.rope import apply_dynamic_ntk

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "embedding_size": 32,
    "dim": 32,
    "hidden_dim": 48,
    "n_layers": 1,
    "n_heads": 4,
    "pad_token_id": 1,
}
OLD = 34
LEARNED = {"xlm-roberta": 32, "roberta": 32, "mpnet": 32, "bert": 34, "electra": 34, "distilbert": 34}
ROTARY = ["nomic_bert", "modernbert", "llama"]


def tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(1)
    known = AutoConfig.for_model(family)
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    model: PreTrainedModel = AutoModel.from_config(
        AutoConfig.for_model(family, **sizes, max_position_embeddings=OLD)
    )
    return model.eval()


@torch.no_grad()
def states(model: PreTrainedModel, length: int) -> Tensor:
    ids = (torch.arange(length) % 80 + 5)[None].repeat(2, 1)
    mask = torch.ones_like(ids)
    ids[1, length // 2 :], mask[1, length // 2 :] = 1, 0
    found: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return found


@pytest.mark.parametrize(("family", "room"), LEARNED.items())
def test_short_inputs_are_unchanged_and_long_ones_fit_exactly(
    tokenizer: PreTrainedTokenizerFast, family: str, room: int, tmp_path: Path
) -> None:
    before, model = tiny(family), tiny(family)
    assert max_tokens(model) == room
    states(model, room)  # the bound is the model's own: one token more fails
    with pytest.raises((IndexError, RuntimeError)):
        states(model, room + 1)
    extend_positions(model, tokenizer, 150)
    assert max_tokens(model) == 150
    assert tokenizer.model_max_length == 150
    for length in (5, room):
        assert torch.equal(states(model, length), states(before, length))
    long = states(model, 150)
    with pytest.raises((IndexError, RuntimeError)):
        states(model, 151)
    model.save_pretrained(tmp_path)
    reloaded = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(states(reloaded, 150), long)
    assert max_tokens(reloaded) == 150


def test_positions_repeat(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny("xlm-roberta")
    old = model.embeddings.position_embeddings.weight.detach().clone()
    extend_positions(model, tokenizer, 8192)
    new = model.embeddings.position_embeddings.weight
    assert model.config.max_position_embeddings == len(new) == 8194
    for token in (0, 1, 31, 32, 33, 64, 8191):
        assert torch.equal(new[2 + token], old[2 + token % 32])
    assert new.requires_grad


def test_extended_positions_are_trained(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny("bert")
    extend_positions(model, tokenizer, 100)
    ids = torch.full((1, 100), 7)
    model(input_ids=ids).last_hidden_state.sum().backward()
    gradient = model.embeddings.position_embeddings.weight.grad
    assert gradient.shape == (100, 32)


def test_a_model_with_enough_positions_is_unchanged(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny("bert")
    before = model.config.to_dict()
    tokenizer.model_max_length = 34
    extend_positions(model, tokenizer, 20)
    assert model.config.to_dict() == before
    assert tokenizer.model_max_length == 34


@pytest.mark.parametrize("family", ROTARY)
def test_rotary_positions_are_not_tiled(tokenizer: PreTrainedTokenizerFast, family: str) -> None:
    with pytest.raises(InputError, match=f"{family} has no learned positions") as error:
        extend_positions(tiny(family), tokenizer, 100)
    assert error.value.where == "model.positions"
    assert "model.dynamic_ntk" in error.value.fix


@pytest.mark.parametrize("family", ROTARY)
def test_rotary_positions_are_bound_by_training_unless_stretched(family: str) -> None:
    model = tiny(family)
    assert max_tokens(model) == OLD
    apply_dynamic_ntk(model, DynamicNTK(factor=2, trained_length=OLD))
    assert max_tokens(model) is None
    require_positions(model, 100_000, "model.document_length")


@pytest.mark.parametrize(("family", "fix"), [("bert", "model.positions"), ("llama", "model.dynamic_ntk")])
def test_a_length_beyond_the_positions_names_its_setting(family: str, fix: str) -> None:
    model = tiny(family)
    require_positions(model, OLD, "model.document_length")
    with pytest.raises(InputError, match=r"rows of 35 tokens, and \w+ has positions for 34") as error:
        require_positions(model, OLD + 1, "model.document_length")
    assert error.value.where == "model.document_length"
    assert fix in error.value.fix

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embedline.errors import InputError
from embedline.models.backbone import new_backbone

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ARCHITECTURES = ["modernbert", "nomic_bert", "bert", "xlm-roberta", "electra"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_mode_drops_nothing(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    model = new_backbone(architecture, SIZES, tokenizer, 0)
    ids = torch.randint(5, 300, (2, 10))
    states = [
        mode(model)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        for mode in (torch.nn.Module.train, torch.nn.Module.train, torch.nn.Module.eval)
    ]
    assert torch.equal(states[0], states[1])
    torch.testing.assert_close(states[0], states[2])


def test_dropout_asked_for_is_given(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_backbone("bert", {**SIZES, "hidden_dropout_prob": 0.5}, tokenizer, 0).train()
    ids = torch.randint(5, 300, (1, 10))
    assert not torch.equal(model(input_ids=ids).last_hidden_state, model(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize("architecture", ["modernbert", "bert"])
def test_a_seed_gives_the_same_weights(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    one, same, other = (new_backbone(architecture, SIZES, tokenizer, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_it_fits_its_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_backbone("modernbert", SIZES, tokenizer, 0)
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows >= len(tokenizer)
    assert rows % 64 == 0
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert set(model.config.layer_types) == {"full_attention"}


@pytest.mark.parametrize(
    ("architecture", "settings", "where", "message"),
    [
        ("modernbret", {}, "model.architecture", "knows no architecture 'modernbret'"),
        ("bert", {"hidden": 32}, "model.settings", "bert has no setting 'hidden'"),
        ("bert", {**SIZES, "num_attention_heads": 5}, "model.settings", "not a multiple of"),
        ("bert", {"hidden_size": "big"}, "model.settings", "expected int, got str"),
        ("modernbert", {"num_hidden_layers": "two"}, "model.settings", "modernbert refuses them"),
    ],
)
def test_what_transformers_does_not_know_is_named(
    tokenizer: PreTrainedTokenizerFast, architecture: str, settings: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        new_backbone(architecture, settings, tokenizer, 0)
    assert error.value.where == where

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from embedline.config.model import LoraConfig
from embedline.errors import InputError
from embedline.models.bidirectional import make_bidirectional, require_bidirectional
from embedline.models.lora import add_lora, merge_lora

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2, "num_key_value_heads": 4}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "modernbert": {},
    "nomic_bert": {},
    "xlm-roberta": {},
    "qwen3_moe": {**EXPERTS, "num_experts": 4},
    "deepseek_v3": {**EXPERTS, **LATENT, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
    | {"first_k_dense_replace": 1},
}
IDS = torch.arange(10, 40).view(3, 10)


def tiny(family: str = "llama") -> PreTrainedModel:
    torch.manual_seed(1)
    model: PreTrainedModel = AutoModel.from_config(
        AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    ).eval()
    make_bidirectional(model)
    return model


def states(model: PreTrainedModel) -> Tensor:
    return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).last_hidden_state


def has_adapters(model: PreTrainedModel) -> bool:
    return any("lora_" in name for name, _ in model.named_modules())


def step(model: PreTrainedModel) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        states(model).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("targets", [[], ["o_proj", "down_proj"]])
def test_adapters_change_nothing_before_training(targets: list[str]) -> None:
    model = tiny()
    before, kind = states(model), type(model)
    add_lora(model, LoraConfig(rank=4, alpha=8, targets=targets))
    assert has_adapters(model)
    assert type(model) is kind
    torch.testing.assert_close(states(model), before, atol=0, rtol=0)


def test_only_adapters_get_gradients() -> None:
    model = tiny()
    add_lora(model, LoraConfig(rank=4, targets=["q_proj"]))
    states(model).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {
        f"layers.{layer}.self_attn.q_proj.lora_{half}.default.weight" for layer in (0, 1) for half in "AB"
    }
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_is_ordinary_and_gives_the_same(family: str, tmp_path: Path) -> None:
    plain = tiny(family)
    names, kind = set(plain.state_dict()), type(plain)
    model = tiny(family)
    add_lora(model, LoraConfig(rank=4, alpha=8))
    step(model)
    unmerged = states(model)
    assert (unmerged - states(plain)).abs().max() > 1e-4, "training moved it"
    merge_lora(model)
    assert not has_adapters(model)
    assert type(model) is kind
    assert set(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(states(model), unmerged, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert not any("lora" in key for key in load_file(tmp_path / "model.safetensors"))
    reloaded = AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(states(reloaded), unmerged, atol=1e-5, rtol=0)
    require_bidirectional(reloaded, "here")


def test_the_frozen_weights_stay_as_they_were() -> None:
    model = tiny()
    add_lora(model, LoraConfig(rank=2, targets=["q_proj"]))
    step(model)
    frozen = tiny().state_dict()
    for name, weight in model.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(weight, frozen[name.replace(".base_layer", "")])


def test_merging_a_plain_model_does_nothing() -> None:
    model = tiny()
    before = states(model)
    merge_lora(model)
    assert torch.equal(states(model), before)


def test_adapters_can_be_added_again_after_a_merge() -> None:
    model = tiny()
    for _ in range(2):
        add_lora(model, LoraConfig(rank=2))
        step(model)
        merge_lora(model)
    assert not has_adapters(model)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "query"], "llama has no layer 'query'"),
        (["norm"], "cannot be adapted"),
    ],
)
def test_targets_that_cannot_be_adapted_are_named(targets: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        add_lora(tiny(), LoraConfig(targets=targets))
    assert error.value.where == "model.lora.targets"
    if "query" in targets:
        assert "down_proj, gate_proj, k_proj" in error.value.fix

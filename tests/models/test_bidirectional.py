from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from embedline.errors import InputError
from embedline.models.bidirectional import (
    is_bidirectional,
    is_decoder_family,
    make_bidirectional,
    require_bidirectional,
)

TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = ["sliding_attention", "full_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "layer_types": SLIDING}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, windows": ("mistral", {"sliding_window": 4}),
    "gemma3": ("gemma3_text", {"sliding_window": 4, "layer_types": SLIDING, "query_pre_attn_scalar": 8}),
    "phi3": ("phi3", {}),
    "gpt_neox": ("gpt_neox", {}),
    "olmo2": ("olmo2", {}),
}
TOKENS = 12


def tiny(family: str, attention: str = "sdpa") -> PreTrainedModel:
    kind, settings = FAMILIES[family]
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **{**TINY, **settings})
    return AutoModel.from_config(config, attn_implementation=attention).eval()


@torch.no_grad()
def moved(model: PreTrainedModel, at: int, *, padding: int = 0, tokens: int = TOKENS) -> list[bool]:
    """Return which states change with the token at `at` (measured independently, one text a batch)."""
    ids = torch.arange(10, 10 + tokens)[None]
    changed = ids.clone()
    changed[0, at] = 90

    def states(row: Tensor) -> Tensor:
        row = torch.nn.functional.pad(row, (0, padding))
        mask = (row != 0).long()
        return model(input_ids=row, attention_mask=mask).last_hidden_state[0, :tokens]

    return ((states(ids) - states(changed)).abs().amax(-1) > 1e-6).tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_token_moves_states_on_both_sides_also_after_a_reload(
    family: str, attention: str, tmp_path: Path
) -> None:
    model = tiny(family, attention)
    assert not any(moved(model, TOKENS - 1)[:-1]), "it was causal to begin with"
    assert not is_bidirectional(model)
    make_bidirectional(model)
    model.save_pretrained(tmp_path)
    reloaded = AutoModel.from_pretrained(tmp_path, attn_implementation=attention).eval()
    for subject in (model, reloaded):
        for padding in (0, 3):
            # A window of 4 in one of two layers reaches at least 3 tokens to each side.
            assert all(moved(subject, 5, padding=padding)[2:9])
            assert moved(subject, TOKENS - 1, padding=padding)[TOKENS - 4]
            assert moved(subject, 0, padding=padding)[3]
    require_bidirectional(reloaded, "here")


def test_a_window_stays_a_window_on_both_sides() -> None:
    model = tiny("mistral, windows")
    make_bidirectional(model)
    reach = moved(model, 15, tokens=30)
    assert reach[15 - 6 : 15 + 7] == [True] * 13  # two layers that reach 3 tokens, as a causal window of 4
    assert not any(reach[: 15 - 6])
    assert not any(reach[15 + 7 :])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_moves_nothing(family: str, attention: str) -> None:
    model = tiny(family, attention)
    make_bidirectional(model)
    row = torch.arange(10, 10 + TOKENS)[None]
    alone = model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state
    wide = torch.nn.functional.pad(row, (0, 5))
    beside = model(input_ids=wide, attention_mask=(wide != 0).long()).last_hidden_state[:, :TOKENS]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_causal_model_is_refused_by_name(family: str) -> None:
    model = tiny(family)
    with pytest.raises(InputError, match=f"{FAMILIES[family][0]} stays causal") as error:
        require_bidirectional(model, "model.base")
    assert error.value.where == "model.base"


def test_a_flag_that_llama_ignores_does_not_mislead_the_check() -> None:
    model = tiny("llama")
    model.config.use_bidirectional_attention = True
    assert not is_bidirectional(model)


def test_an_architecture_that_ignores_the_setting_is_refused() -> None:
    config = AutoConfig.for_model("mamba", vocab_size=96, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = AutoModel.from_config(config)
    with pytest.raises(InputError, match="mamba stays causal"):
        make_bidirectional(model)


def test_an_encoder_passes_unchanged() -> None:
    sizes = {key: value for key, value in TINY.items() if key not in {"num_key_value_heads", "head_dim"}}
    for kind in ("bert", "xlm-roberta", "modernbert", "nomic_bert"):
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()
        before = model.config.to_dict()
        require_bidirectional(model, "model.base")
        make_bidirectional(model)
        assert model.config.to_dict() == before


def test_gemmas_own_bidirectional_mode_is_kept() -> None:
    settings = FAMILIES["gemma3"][1]
    config = AutoConfig.for_model("gemma3_text", **TINY, **settings, use_bidirectional_attention=True)
    model = AutoModel.from_config(config).eval()
    make_bidirectional(model)
    assert getattr(model.config, "is_causal", True)


def test_the_check_keeps_mode_and_random_state() -> None:
    model = tiny("llama").train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    is_bidirectional(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training


def test_decoders_are_recognised_by_their_heads() -> None:
    decoders = ["llama", "qwen2", "qwen3", "mistral", "gemma3_text", "phi3", "modernbert-decoder"]
    encoders = ["bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "electra", "eurobert", "mpnet"]
    assert all(is_decoder_family(AutoConfig.for_model(kind)) for kind in decoders)
    assert not any(is_decoder_family(AutoConfig.for_model(kind)) for kind in encoders)
    own = AutoConfig.for_model("llama")
    own.model_type, own.auto_map = "gigachat", {"AutoModelForCausalLM": "modeling.GigaForCausalLM"}
    assert is_decoder_family(own)


def test_a_checkpoint_with_its_language_model_head_loads_as_an_encoder(tmp_path: Path) -> None:
    config = AutoConfig.for_model("llama", **TINY)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()
    make_bidirectional(model)
    assert moved(model, TOKENS - 1)[0]

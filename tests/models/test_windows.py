"""Attention windows of decoders made bidirectional, measured by changing one token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.integrations import flash_attention as transformers_flash

from embedline.config.model import ModelConfig
from embedline.models.attention import use_attention, use_fp32_attention
from embedline.models.backbone import prepare_backbone
from embedline.models.bidirectional import make_bidirectional
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.tokenizer import train_tokenizer

TINY: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention"]}
DECODERS: dict[str, dict[str, Any]] = {  # a window of 4: the token itself and 3 before it
    "mistral": {"sliding_window": 4},
    "phi3": {"sliding_window": 4},
    "qwen2": {**SLIDING, "use_sliding_window": True},
    "qwen3": {**SLIDING, "use_sliding_window": True},
    "gemma2": {**SLIDING, "query_pre_attn_scalar": 16},
    "gemma3_text": {**SLIDING, "query_pre_attn_scalar": 16},
    "cohere2": SLIDING,
    "modernbert-decoder": {"local_attention": 8, "layer_types": ["sliding_attention"]},
}
# Bidirectional by themselves; they keep the windows that they were made with.
ENCODERS: dict[str, tuple[dict[str, Any], int]] = {
    "modernbert": ({"local_attention": 8, "layer_types": ["sliding_attention"]}, 4),
    "gemma3_text": ({**DECODERS["gemma3_text"], "use_bidirectional_attention": True}, 2),
}
TOKENS, CHANGED = 16, 7


def _tiny(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    special = {f"{name}_token_id": 1 for name in ("cls", "sep")}
    config = AutoConfig.for_model(kind, **TINY, **special, **settings)
    model: PreTrainedModel = AutoModel.from_config(config, attn_implementation="eager").eval()
    return model


@torch.no_grad()
def _reach(states_of: Any, *, padding: int = 0) -> tuple[int, int]:
    """Return how many tokens back and ahead a state depends on."""
    ids = torch.arange(10, 10 + TOKENS).repeat(2, 1)
    ids[1, CHANGED] = 90
    ids = torch.nn.functional.pad(ids, (0, padding))
    original, changed = states_of(input_ids=ids, attention_mask=(ids != 0).long())[:, :TOKENS]
    moved = ((original - changed).abs().amax(-1) > 1e-6).nonzero().flatten()
    return int(moved.max()) - CHANGED, CHANGED - int(moved.min())


def _states(model: PreTrainedModel) -> Any:
    return lambda **inputs: model(**inputs).last_hidden_state


def _flash_kernel(query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any) -> Tensor:
    """Compute flash attention as transformers calls it: inclusive bounds, w - 1 to each side."""
    groups = query.shape[2] // key.shape[2]
    key, value = key.repeat_interleave(groups, 2), value.repeat_interleave(groups, 2)
    scale = more["softmax_scale"] or 1 / math.sqrt(query.shape[-1])
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * scale
    if more.get("softcap"):
        scores = (scores / more["softcap"]).tanh() * more["softcap"]
    distance = torch.arange(scores.shape[-1])[:, None] - torch.arange(scores.shape[-1])
    hidden = distance.abs() > more["sliding_window"] - 1
    if more["is_causal"]:
        hidden = hidden | (distance < 0)
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(hidden, -math.inf).softmax(-1), value)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_reaches_ahead_as_far_as_back_also_after_a_reload(kind: str, tmp_path: Path) -> None:
    model = _tiny(kind, DECODERS[kind])
    assert _reach(_states(model)) == (3, 0)
    assert make_bidirectional(model)
    model.save_pretrained(tmp_path)
    for subject in (model, AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()):
        assert not make_bidirectional(subject)
        for padding in (0, 3):
            assert _reach(_states(subject), padding=padding) == (3, 3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel", ["sdpa", "plain"])
@pytest.mark.parametrize("kind", DECODERS)
def test_every_kernel_has_the_same_window(kind: str, kernel: Any, training: bool) -> None:
    model = _tiny(kind, DECODERS[kind])
    make_bidirectional(model)
    use_attention(model, kernel)
    model.train(training)
    for padding in (0, 3):
        assert _reach(_states(model), padding=padding) == (3, 3)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_keeps_its_window(kind: str, tmp_path: Path) -> None:
    settings, reach = ENCODERS[kind]
    model = _tiny(kind, settings)
    assert not make_bidirectional(model)
    model.save_pretrained(tmp_path)
    for subject in (model, AutoModel.from_pretrained(tmp_path).eval()):
        assert _reach(_states(subject)) == (reach, reach)


@pytest.mark.parametrize("kind", [*DECODERS, "modernbert"])
def test_flash_attention_receives_the_window_of_the_masks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _tiny(kind, DECODERS.get(kind) or ENCODERS[kind][0])
    make_bidirectional(model)
    ids = torch.arange(10, 10 + TOKENS)[None]
    expected = model(input_ids=ids).last_hidden_state
    monkeypatch.setattr(transformers_flash, "_flash_attention_forward", _flash_kernel)
    model.config._attn_implementation = "flash_attention_2"
    torch.testing.assert_close(model(input_ids=ids).last_hidden_state, expected, atol=1e-5, rtol=0)
    use_fp32_attention(model)
    assert not model.config._attn_implementation.startswith("flash")
    torch.testing.assert_close(model(input_ids=ids).last_hidden_state, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_language_model_gets_its_window_once_however_often_it_is_saved(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["пароль", "printer"], 384)
    folder = tmp_path / "base"
    _tiny(kind, DECODERS[kind]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for number in range(3):
        embedder = load_embedder(folder, attention="sdpa", as_base=True).eval()
        prepare_backbone(embedder.backbone, tokenizer, ModelConfig(base="base"))
        assert _reach(lambda **inputs: embedder.states(**inputs)[0]) == (3, 3)  # noqa: B023 (called at once)
        folder = tmp_path / str(number)
        save_embedder(embedder, folder)


def test_a_kernel_without_caps_and_sinks_is_not_used_where_the_model_has_them() -> None:
    """Gemma 2 caps its scores and gpt-oss has sinks; sdpa, on which the plain kernel evaluates, has none."""
    for kind, settings in (("gemma2", DECODERS["gemma2"]), ("gpt_oss", {**SLIDING, "num_local_experts": 4})):
        model = _tiny(kind, settings)
        ids = torch.arange(10, 10 + TOKENS)[None]
        expected = model(input_ids=ids).last_hidden_state
        for kernel in ("plain", "sdpa"):
            use_attention(model, kernel)
            assert torch.equal(model(input_ids=ids).last_hidden_state, expected)

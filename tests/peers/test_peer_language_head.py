"""Pretraining that continues a language model starts at that model's own loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from embedline.compress.vocabulary import restricted_tokenizer
from embedline.config.training import PretrainConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder
from embedline.models.language_head import load_language_head
from embedline.training.objectives.prediction import TokenPredictor, corrupt_tokens
from embedline.training.pretraining import objective_module

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 16}
MASKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "xlm-roberta": {"max_position_embeddings": 64},
    "modernbert": {},
    "nomic_bert": {},
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 16}),
    "gemma3, capped": ("gemma3_text", {"query_pre_attn_scalar": 16, "final_logit_softcapping": 2.0}),
}
PADDED = 64  # rows of the matrices beyond the tokenizer's tokens


def base(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    kind: str,
    auto: Any,
    *,
    rows: int = PADDED,
    **settings: Any,
) -> PreTrainedModel:
    """Save a language model with random weights in `folder`, in the form of published ones."""
    config = AutoConfig.for_model(
        kind,
        **{**SIZES, **settings},
        vocab_size=len(tokenizer) + rows,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    torch.manual_seed(0)
    model: PreTrainedModel = auto.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():  # initial biases and norms would hide a mistake
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def module_of(folder: Path, texts: list[str], objective: str, **settings: Any) -> Any:
    embedder = load_embedder(folder, as_base=True)
    head = load_language_head(folder, embedder.tokenizer)
    config = PretrainConfig(objective=objective, length=24, **settings)  # type: ignore[arg-type]
    return objective_module(embedder, texts, config, head).eval()


def batch(embedder: Embedder, texts: list[str]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return inputs, what the encoder gets of them, and the positions to predict."""
    inputs = embedder.pad(embedder.tokenize(texts, max_length=24))
    special = torch.tensor(embedder.tokenizer.all_special_ids)
    ordinary = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)
    torch.manual_seed(1)
    masked, targets = corrupt_tokens(
        inputs["input_ids"],
        ordinary,
        0.4,
        int(embedder.tokenizer.mask_token_id),  # type: ignore[arg-type]
        vocabulary=len(embedder.tokenizer),
    )
    return inputs, masked, targets


def their_loss(peer: PreTrainedModel, inputs: dict[str, Tensor], masked: Tensor, targets: Tensor) -> float:
    labels = inputs["input_ids"].masked_fill(~targets, -100)
    with torch.no_grad():
        return float(peer(input_ids=masked, attention_mask=inputs["attention_mask"], labels=labels).loss)


@pytest.mark.parametrize("kind", MASKED)
def test_masked_tokens_start_at_the_masked_language_models_loss(tmp_path, tokenizer, texts, kind) -> None:
    peer = base(tmp_path, tokenizer, kind, AutoModelForMaskedLM, **MASKED[kind])
    module = module_of(tmp_path, texts, "mlm")
    inputs, masked, targets = batch(module.embedder, texts)
    loss = module(**inputs, masked_ids=masked, targets_BT=targets)
    assert loss.item() == pytest.approx(their_loss(peer, inputs, masked, targets), abs=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.head.parameters())


@pytest.mark.parametrize("kind", CAUSAL)
def test_masked_next_tokens_start_at_the_bidirectional_decoders_loss(
    tmp_path, tokenizer, texts, kind
) -> None:
    name, settings = CAUSAL[kind]
    peer = base(tmp_path, tokenizer, name, AutoModelForCausalLM, **{**GROUPED, **settings})
    peer.config.is_causal = False
    module = module_of(tmp_path, texts, "mntp")
    inputs, masked, targets = batch(module.embedder, texts)
    loss = module(**inputs, masked_ids=masked, targets_BT=targets)
    assert loss.item() == pytest.approx(their_loss(peer, inputs, masked, targets), abs=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.head.parameters())
    # tied to no other weight: training it does not change the model's own table
    table = module.embedder.backbone.get_input_embeddings().weight
    assert all(parameter is not table for parameter in module.head.parameters())


@pytest.mark.parametrize("kind", MASKED)
def test_retromae_uses_the_encoders_head_for_its_decoder_too(
    tmp_path, tokenizer, texts, kind, monkeypatch
) -> None:
    peer = base(tmp_path, tokenizer, kind, AutoModelForMaskedLM, **MASKED[kind])
    module = module_of(tmp_path, texts, "retromae", bag_of_words=1.0)
    inputs, masked, hidden = batch(module.embedder, texts)
    everywhere = inputs["attention_mask"].bool()
    rebuilt = []
    decode = module._decode
    monkeypatch.setattr(module, "_decode", lambda *given: rebuilt.append(decode(*given)) or rebuilt[-1])
    found = module(**inputs, masked_ids=masked, targets_BT=hidden, decoder_targets_BT=everywhere)
    assert found.encoder.item() == pytest.approx(their_loss(peer, inputs, masked, hidden), abs=1e-5)
    setattr(peer, peer.base_model_prefix, torch.nn.Identity())  # their head, on the decoder's states
    theirs = _head(peer, kind)(rebuilt[0])
    expected = torch.nn.functional.cross_entropy(theirs[everywhere], inputs["input_ids"][everywhere])
    assert found.decoder.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.isfinite(found.words)


def _head(peer: Any, kind: str) -> Any:
    """Return the modules of each family, by name."""
    if kind == "modernbert":
        return lambda states: peer.decoder(peer.head(states))
    return peer.lm_head if kind == "xlm-roberta" else peer.cls


@pytest.mark.parametrize(
    ("kind", "auto", "tied"),
    [("bert", AutoModelForMaskedLM, True), ("llama", AutoModelForCausalLM, False)],
)
def test_a_bare_encoder_gets_a_new_head(tmp_path, tokenizer, texts, kind, auto, tied) -> None:
    model = base(tmp_path / "whole", tokenizer, kind, auto, tie_word_embeddings=tied)
    bare = tmp_path / "bare"
    model.base_model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    assert load_language_head(bare, tokenizer) is None
    module = module_of(bare, texts, "mntp" if kind == "llama" else "mlm")
    assert any(isinstance(part, TokenPredictor) for part in module.modules())


def test_a_checkpoint_holds_each_weight_of_the_head_once(tmp_path, tokenizer, texts) -> None:
    """BERT's head and its last layer share a bias, which safetensors refuses to write twice."""
    base(tmp_path, tokenizer, "bert", AutoModelForMaskedLM)
    for objective in ("mlm", "retromae"):
        save_file(module_of(tmp_path, texts, objective).state_dict(), tmp_path / f"{objective}.safetensors")


@pytest.mark.parametrize(
    ("kind", "auto"),
    [*((kind, AutoModelForMaskedLM) for kind in MASKED), ("llama", AutoModelForCausalLM)],
)
def test_a_pruned_vocabulary_gets_its_tokens_logits(tmp_path, tokenizer, texts, kind, auto) -> None:
    base(tmp_path, tokenizer, kind, auto, rows=8, **MASKED.get(kind, {}))
    embedder = load_embedder(tmp_path, as_base=True)
    rows = [*range(20), *range(40, len(tokenizer))]
    smaller = restricted_tokenizer(tokenizer, rows)
    whole, head = load_language_head(tmp_path, tokenizer), load_language_head(tmp_path, smaller)
    assert whole is not None
    assert head is not None
    states = torch.randn(3, embedder.state_width)
    torch.testing.assert_close(head(states), whole(states)[:, rows])
    assert head.tokens == len(rows)


def test_a_head_of_fewer_tokens_than_the_tokenizers_is_refused(tmp_path, tokenizer) -> None:
    base(tmp_path, tokenizer, "bert", AutoModelForMaskedLM, rows=-8)
    with pytest.raises(InputError, match="its head covers"):
        load_language_head(tmp_path, tokenizer)

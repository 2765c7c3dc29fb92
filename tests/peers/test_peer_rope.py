"""Dynamic NTK against transformers' own on single texts; its modules keep lengths: each text has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from embedline.config.model import DynamicNTK
from embedline.models.bidirectional import make_bidirectional
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import position_ids_of

TRAINED, FACTOR = 32, 2.0
SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
DECODER = {"num_key_value_heads": 2, "head_dim": 12, "bos_token_id": 1, "eos_token_id": 2}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "nomic_bert": {},
    "modernbert": {**MIXED, "local_attention": 16},
    "eurobert": {"num_key_value_heads": 4, "head_dim": 12},
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "mistral": {**DECODER, "sliding_window": None},
    "gemma3_text": {**DECODER, **MIXED, "sliding_window": 8, "query_pre_attn_scalar": 12},
}
LENGTHS = [5, 16, TRAINED - 1, TRAINED, TRAINED + 1, 47, 100, 200]


def plain(family: str) -> PreTrainedModel:
    torch.manual_seed(3)
    config = AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    model: PreTrainedModel = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():  # with small initial weights attention is flat, and positions hardly matter
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "Wqkv", "qkv")):
                parameter.mul_(20)
    make_bidirectional(model)
    return model


def ours(family: str) -> PreTrainedModel:
    model = plain(family)
    apply_dynamic_ntk(model, DynamicNTK.model_construct(factor=FACTOR, trained_length=TRAINED))
    return model


def peer_config(config: PretrainedConfig) -> PretrainedConfig:
    """A config in transformers' own form, written by hand."""
    kinds = config.rope_parameters
    stretched = kinds.get("full_attention", kinds)
    stretched |= {"rope_type": "dynamic", "factor": FACTOR}
    config.max_position_embeddings = TRAINED
    return config


def fresh_peer(family: str) -> PreTrainedModel:
    source = plain(family)
    peer: PreTrainedModel = AutoModel.from_config(peer_config(source.config), attn_implementation="sdpa")
    peer.load_state_dict(source.state_dict())
    return peer.eval()


def text(length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1000 + length)
    return torch.randint(3, 128, (1, length), generator=generator)


@torch.no_grad()
def states(model: PreTrainedModel, ids: Tensor, *, positions: bool = True) -> Tensor:
    mask = (ids != 0).long()
    more = {"position_ids": position_ids_of(mask)} if positions else {}
    found: Tensor = model(input_ids=ids, attention_mask=mask, **more).last_hidden_state
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_single_texts_give_transformers_states(family: str) -> None:
    model = ours(family)
    for length in LENGTHS:  # ours keeps nothing of an earlier, longer text
        ids = text(length)
        expected = states(fresh_peer(family), ids, positions=False)
        torch.testing.assert_close(states(model, ids), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(states(model, ids, positions=False), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_change_only_beyond_the_trained_length(family: str) -> None:
    before, model = plain(family), ours(family)
    for length in (5, TRAINED):
        assert torch.equal(states(model, text(length)), states(before, text(length)))
    assert (states(model, text(100)) - states(before, text(100))).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_texts_states_do_not_depend_on_its_batch(family: str) -> None:
    model = ours(family)
    alone = {length: states(model, text(length)) for length in LENGTHS}
    rows = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        rows[row, :length] = text(length)
    together = states(model, rows)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(together[row, :length], alone[length][0], atol=1e-5, rtol=0)


def test_transformers_own_depends_on_the_batch() -> None:
    """The reason for rope.py; when this fails, transformers' own can be used."""
    long, short = text(100), text(47)
    rows = torch.cat([torch.nn.functional.pad(short, (0, 53)), long])
    together = states(fresh_peer("llama"), rows, positions=False)[0, :47]
    assert (together - states(fresh_peer("llama"), short, positions=False)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["nomic_bert", "modernbert", "llama", "gemma3_text"])
def test_a_saved_model_matches_automodel_on_single_texts(family: str, tmp_path: Path) -> None:
    model = ours(family)
    model.save_pretrained(tmp_path)
    reloaded = AutoModel.from_pretrained(tmp_path).eval()
    again = AutoModel.from_pretrained(tmp_path).eval()
    apply_dynamic_ntk(again)
    for length in LENGTHS:  # rising, because transformers' module keeps the longest
        expected = states(model, text(length))
        torch.testing.assert_close(
            states(reloaded, text(length), positions=False), expected, atol=1e-5, rtol=0
        )
        assert torch.equal(states(again, text(length)), expected)


class Exported(nn.Module):
    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = position_ids_of(attention_mask)
        found: Tensor = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions
        ).last_hidden_state
        return found


@pytest.mark.parametrize("family", ["nomic_bert", "gemma3_text"])  # one rotary kind, and two
def test_dynamic_ntk_exports_to_onnx_and_runs_at_odd_lengths(family: str, tmp_path: Path) -> None:
    model = ours(family)
    ids = torch.cat([text(40), text(40, seed=1)])
    path = tmp_path / "model.onnx"
    shapes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        Exported(model).eval(),
        (ids, torch.ones_like(ids)),
        str(path),
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["states"],
        dynamic_shapes={"input_ids": shapes, "attention_mask": shapes},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for lengths in ([7], [33, 5], [71, 32, 13], [131, 1]):
        rows = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            rows[row, :length] = text(length)
        mask = (rows != 0).long()
        (found,) = session.run(["states"], {"input_ids": rows.numpy(), "attention_mask": mask.numpy()})
        expected = states(model, rows).numpy()
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(found[row, :length], expected[row, :length], atol=1e-5)

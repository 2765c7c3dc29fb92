from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from embedline.config.model import DynamicNTK
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder import save_embedder
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import RowwiseRotary, has_dynamic_ntk, position_ids_of

NTK = DynamicNTK(factor=2, trained_length=16)
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}


def tiny(family: str, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    model: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(family, **SIZES, **settings))
    return model.eval()


def test_position_ids_hold_each_rows_length() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])
    positions = position_ids_of(mask)
    assert positions.tolist() == [[0, 1, 2, 2], [0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_the_base_frequency_follows_the_formula() -> None:
    model = tiny("llama", rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    apply_dynamic_ntk(model, NTK)
    for length, expected in [(4, 1.0), (16, 1.0), (17, 1.125), (24, 2.0), (64, 7.0)]:
        cosines, sines = model.rotary_emb(torch.zeros(1), torch.arange(length)[None])
        theta = 10_000.0 * expected ** (8 / 6)
        for feature in range(4):
            angles = torch.arange(length, dtype=torch.float64) / theta ** (2 * feature / 8)
            torch.testing.assert_close(cosines[0, :, feature].double(), angles.cos(), atol=1e-5, rtol=0)
            torch.testing.assert_close(sines[0, :, feature + 4].double(), angles.sin(), atol=1e-5, rtol=0)


def test_rope_parameters_of_another_form_are_not_dynamic() -> None:
    config = AutoConfig.for_model("bert")
    config.rope_parameters = {"rope_theta": 1e4, "partial": {"factor": 2.0}}
    assert not has_dynamic_ntk(config)


def test_applying_dynamic_ntk_twice_changes_nothing() -> None:
    model = tiny("llama")
    apply_dynamic_ntk(model, NTK)
    config, ids = model.config.to_dict(), torch.arange(5, 35)[None]
    before = model(input_ids=ids).last_hidden_state
    apply_dynamic_ntk(model, NTK)
    apply_dynamic_ntk(model)
    assert model.config.to_dict() == config
    assert torch.equal(model(input_ids=ids).last_hidden_state, before)


def test_rowwise_rotary_adds_no_weights_and_follows_the_dtype() -> None:
    model = tiny("llama")
    names = set(model.state_dict())
    apply_dynamic_ntk(model, NTK)
    assert set(model.state_dict()) == names
    assert isinstance(model.rotary_emb, RowwiseRotary)
    half = model.to(torch.bfloat16)
    assert half(input_ids=torch.arange(5, 35)[None]).last_hidden_state.dtype == torch.bfloat16


def test_the_config_records_dynamic_ntk_where_distances_grow() -> None:
    plain, mixed = tiny("llama"), tiny("modernbert")
    assert not has_dynamic_ntk(plain.config)
    assert not has_dynamic_ntk(tiny("bert").config)
    apply_dynamic_ntk(plain, NTK)
    apply_dynamic_ntk(mixed, NTK)
    assert has_dynamic_ntk(plain.config)
    assert has_dynamic_ntk(mixed.config)
    assert plain.config.rope_parameters == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert plain.config.max_position_embeddings == mixed.config.max_position_embeddings == 16
    assert mixed.config.rope_parameters["full_attention"]["rope_type"] == "dynamic"
    assert mixed.config.rope_parameters["sliding_attention"]["rope_type"] == "default"


@pytest.mark.parametrize("architecture", ["nomic_bert", "modernbert", "llama"])
def test_an_embedders_vectors_do_not_depend_on_the_batch(make_embedder: Any, architecture: str) -> None:
    embedder: Embedder = make_embedder(architecture)
    apply_dynamic_ntk(embedder.backbone, NTK)
    rows = [list(range(10, 10 + length)) for length in (3, 16, 20, 75)]
    with torch.no_grad():
        together = embedder(**embedder.pad(rows))
        for row, vector in zip(rows, together, strict=True):
            torch.testing.assert_close(embedder(**embedder.pad([row]))[0], vector, atol=1e-5, rtol=0)


def test_a_saved_mcls_model_matches_automodel_on_single_texts(make_embedder: Any, tmp_path: Path) -> None:
    embedder: Embedder = make_embedder("nomic_bert", "mcls")
    with torch.no_grad():  # with small initial weights attention is flat, and positions hardly matter
        for name, parameter in embedder.backbone.named_parameters():
            parameter.mul_(20 if "q_proj" in name or "k_proj" in name else 1)
    apply_dynamic_ntk(embedder.backbone, NTK)
    short = embedder.with_spec(replace(embedder.spec, mcls_every=8)).eval()
    save_embedder(short, tmp_path)
    for length in (10, 20, 45):  # MCLS pads the last block: 11 tokens become a row of 18
        ids = torch.arange(10, 10 + length)[None]
        fresh = AutoModel.from_pretrained(tmp_path, trust_remote_code=True).eval()  # it keeps earlier lengths
        with torch.no_grad():
            expected = torch.nn.functional.normalize(short(ids, torch.ones_like(ids)), dim=-1)
            found = fresh(input_ids=ids, attention_mask=torch.ones_like(ids), return_embeddings=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("bert", {}, "bert has no rotary positions"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "scaled already",
        ),
        ("modernbert", {"layer_types": ["sliding_attention"] * 2}, "attends within a window"),
        ("llama", {"head_dim": 2}, "a head of width 2"),
        ("cohere", {}, "a form of rotary positions that Embedline does not support"),
    ],
)
def test_unsupported_rotary_positions_are_refused(
    family: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        apply_dynamic_ntk(tiny(family, **settings), NTK)
    assert error.value.where == "model.dynamic_ntk"

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, LlamaConfig

from embedline.compress.layer_config import keep_layers
from embedline.compress.layers import (
    angular_distances,
    choose_layers,
    layer_list,
    layers_to_drop,
    without_layers,
)
from embedline.errors import InputError
from embedline.models.folder import load_embedder, save_embedder

ARCHITECTURES = ["bert", "modernbert", "nomic_bert", "xlm-roberta", "llama", "qwen3"]


@given(st.floats(0.01, 0.99), st.integers(2, 80))
def test_a_share_drops_at_least_one_layer_and_leaves_at_least_one(share, layers):
    drop = layers_to_drop(share, layers)
    assert 1 <= drop < layers
    assert abs(drop - share * layers) <= 1


def test_the_only_layer_cannot_be_dropped():
    with pytest.raises(InputError, match="single layer"):
        layers_to_drop(0.25, 1)


@pytest.mark.parametrize("method", ["even", "last"])
def test_kept_layers_are_in_order_and_begin_with_the_first(make_embedder, method):
    for layers in (2, 5, 12):
        embedder = make_embedder(layers=layers, hidden_size=8, intermediate_size=8)
        for drop in range(1, layers):
            kept = choose_layers(embedder, drop, method)
            assert kept == sorted(set(kept))
            assert len(kept) == layers - drop
            assert kept[0] == 0


def test_even_keeps_both_ends_and_equal_gaps(make_embedder):
    embedder = make_embedder(layers=9, hidden_size=8, intermediate_size=8)
    assert choose_layers(embedder, 4, "even") == [0, 2, 4, 6, 8]
    assert choose_layers(embedder, 3, "last") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("drop", [0, 4, 5])
def test_dropping_nothing_or_everything_is_refused(make_embedder, drop):
    with pytest.raises(InputError):
        choose_layers(make_embedder(layers=4), drop, "last")


def test_angular_needs_texts(make_embedder):
    with pytest.raises(InputError, match="texts"):
        choose_layers(make_embedder(), 1, "angular")


@pytest.mark.parametrize("block", [1, 2, 3])
def test_angular_distances_are_those_of_the_models_own_hidden_states(make_embedder, make_texts, block):
    """BERT's `output_hidden_states` are the inputs of its layers and its last output; texts one at a time."""
    embedder, texts = make_embedder("bert"), make_texts(12, 0)
    angles = []
    for ids in embedder.tokenize(texts, max_length=32):
        with torch.no_grad():
            states = embedder.backbone(torch.tensor([ids]), output_hidden_states=True).hidden_states
        for t in range(len(ids)):
            vectors = [state[0, t].double().numpy() for state in states]
            angles.append(
                [
                    math.acos(min(1, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))) / math.pi
                    for a, b in zip(vectors[:-block], vectors[block:], strict=True)
                ]
            )
    found = angular_distances(embedder, block, texts, batch_tokens=40)
    np.testing.assert_allclose(found.numpy(), np.mean(angles, axis=0), atol=1e-5)


def test_angular_finds_a_block_without_effect(make_embedder, make_texts):
    embedder, texts = make_embedder(layers=6), make_texts(20, 1)
    for index in (3, 4):
        for part in (layer_list(embedder.backbone)[index].attn, layer_list(embedder.backbone)[index].mlp):
            torch.nn.init.zeros_(part.Wo.weight)
    kept = choose_layers(embedder, 2, "angular", texts)
    assert kept == [0, 1, 2, 5]
    pruned = without_layers(embedder, kept)
    np.testing.assert_allclose(pruned.encode(texts), embedder.encode(texts), atol=1e-6)


def test_angular_never_drops_the_first_layer(make_embedder, make_texts):
    embedder = make_embedder(layers=3)
    first = layer_list(embedder.backbone)[0]
    for part in (first.attn, first.mlp):
        torch.nn.init.zeros_(part.Wo.weight)
    assert choose_layers(embedder, 1, "angular", make_texts(8, 2))[0] == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_pruned_model_is_the_same_after_save_and_load(make_embedder, make_texts, architecture, tmp_path):
    settings = {"num_key_value_heads": 2, "head_dim": 16} if architecture == "qwen3" else {}
    embedder, texts = make_embedder(architecture, layers=5, **settings), make_texts(10, 3)
    before = embedder.encode(texts)
    pruned = without_layers(embedder, [0, 2, 4])
    save_embedder(pruned, tmp_path)
    loaded = load_embedder(tmp_path)
    np.testing.assert_array_equal(loaded.encode(texts), pruned.encode(texts))
    np.testing.assert_array_equal(embedder.encode(texts), before)
    assert loaded.backbone.config.num_hidden_layers == len(layer_list(loaded.backbone)) == 3
    originals = layer_list(embedder.backbone)
    for layer, origin in zip(layer_list(loaded.backbone), (0, 2, 4), strict=True):
        for name, value in originals[origin].state_dict().items():
            assert torch.equal(layer.state_dict()[name], value), name
    numbers = [
        {m.layer_idx for m in layer.modules() if hasattr(m, "layer_idx")}
        for layer in layer_list(pruned.backbone)
    ]
    assert all(found <= {i} for i, found in enumerate(numbers))


def test_dropping_the_last_layers_leaves_the_state_before_them(make_embedder, make_texts):
    embedder = make_embedder("bert", layers=5)
    inputs = embedder.pad(embedder.tokenize(make_texts(4, 4), max_length=32))
    with torch.no_grad():
        states = embedder.backbone(**inputs, output_hidden_states=True).hidden_states
        found = without_layers(embedder, [0, 1, 2]).backbone(**inputs).last_hidden_state
    torch.testing.assert_close(found, states[3])


def test_each_kept_layer_keeps_its_kind_of_attention(make_embedder, make_texts, tmp_path):
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    embedder = make_embedder(layers=4, layer_types=kinds, local_attention=4)
    pruned = without_layers(embedder, [0, 1, 3])
    assert pruned.backbone.config.layer_types == [kinds[i] for i in (0, 1, 3)]
    assert embedder.backbone.config.layer_types == kinds
    for kept in ([0, 1, 3], [0, 3]):  # the second has no sliding layer left
        texts, pruned = make_texts(6, 5), without_layers(embedder, kept)
        save_embedder(pruned, tmp_path / str(len(kept)))
        loaded = load_embedder(tmp_path / str(len(kept)))
        np.testing.assert_array_equal(loaded.encode(texts), pruned.encode(texts))


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
EXPERTS = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"moe_intermediate_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
# Per-layer settings, and their values for the layers 0, 2, 3 and 5 of six.
PER_LAYER = {
    "smollm3": ({"no_rope_layers": [1, 0, 1, 1, 0, 0]}, {"no_rope_layers": [1, 1, 1, 0]}),
    "qwen3_moe": ({**EXPERTS, "mlp_only_layers": [2, 4, 5]}, {"mlp_only_layers": [1, 3]}),
    "qwen2_moe": (
        {**EXPERTS, "decoder_sparse_step": 2, "shared_expert_intermediate_size": 8, "mlp_only_layers": [3]},
        {"decoder_sparse_step": 1, "mlp_only_layers": [0, 1, 2]},  # layers 1 and 5 have experts
    ),
    "deepseek_v2": (
        {**ROUTED, "first_k_dense_replace": 3, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
        | {"v_head_dim": 8, "kv_lora_rank": 4, "q_lora_rank": 4, "topk_group": 1, "head_dim": 4},
        {"first_k_dense_replace": 2},
    ),
    "ernie4_5_moe": (
        {"moe_intermediate_size": 8, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}
        | {"moe_layer_start_index": 1, "moe_layer_end_index": 4},
        {"moe_layer_start_index": 1, "moe_layer_end_index": 2},
    ),
    "granite_swa": (
        {"sliding_window": 4, "layer_rope_theta": [1e4, 5e3, 1e3, 100.0, 1e4, 50.0]},
        {"layer_rope_theta": [1e4, 1e3, 100.0, 50.0]},
    ),
}


@pytest.mark.parametrize("architecture", PER_LAYER)
def test_each_kept_layer_keeps_its_own_settings(make_embedder, make_texts, architecture, tmp_path):
    given, expected = PER_LAYER[architecture]
    embedder = make_embedder(architecture, layers=6, **SIZES, **given)
    pruned = without_layers(embedder, [0, 2, 3, 5])
    assert {name: getattr(pruned.backbone.config, name) for name in expected} == expected
    save_embedder(pruned, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()  # as other programs do
    inputs = pruned.pad(pruned.tokenize(make_texts(6, 5), max_length=32))
    with torch.no_grad():
        found, before = (model(**inputs).last_hidden_state for model in (loaded, pruned.backbone))
    torch.testing.assert_close(found, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("ernie4_5_moe", PER_LAYER["ernie4_5_moe"][0] | SIZES | {"moe_layer_interval": 2}),
        ("minicpm3", {**SIZES, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}),
    ],
)
def test_a_rule_by_layer_number_without_a_list_is_refused(make_embedder, architecture, settings):
    embedder = make_embedder(architecture, layers=6, **settings)
    with pytest.raises(InputError, match="another model after it is saved") as error:
        without_layers(embedder, [0, 2, 3, 5])
    assert (error.value.where, "never" in error.value.fix) == ("prune.when", True)


@pytest.mark.parametrize(
    ("architecture", "pattern"),
    [
        ("cohere2", {"sliding_window_pattern": 2}),
        ("gemma3_text", {"sliding_window_pattern": 3}),
        ("modernbert", {"global_attn_every_n_layers": 3}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}),
        ("exaone4", {"sliding_window_pattern": 4, "sliding_window": 8}),
    ],
)
def test_a_period_of_attention_layers_becomes_a_list(architecture, pattern, tmp_path):
    config = AutoConfig.for_model(architecture, num_hidden_layers=6, **pattern)
    before = config.layer_types
    assert len(set(before)) == 2
    keep_layers(config, [0, 2, 3, 5])
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).layer_types == [before[i] for i in (0, 2, 3, 5)]


def test_a_list_that_is_as_long_as_the_layers_by_chance_stays():
    config = LlamaConfig(num_hidden_layers=3, eos_token_id=[4, 7, 9])
    keep_layers(config, [0, 2])
    assert (config.num_hidden_layers, config.eos_token_id) == (2, [4, 7, 9])

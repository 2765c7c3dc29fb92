"""Each refusal refuses its combination and nothing else, and names the setting."""

from __future__ import annotations

from typing import Any

import pytest

from embedline.config.load import load_config, preset_names, validate_config
from embedline.config.refusals import REFUSALS, find_refusals
from embedline.errors import InputError

ALL = ["dense", "lexical", "multi_vector"]
BUCKETS = [{"tokens": 64, "batch": 8}, {"tokens": 32, "batch": 8}]
# By name: settings that are refused, what the message names, and the nearest settings that are not.
EXAMPLES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "heads without dense": (
        {"model": {"heads": ["lexical"], "base": "b"}},
        "model.heads",
        {"model": {"heads": ["dense", "lexical"], "base": "b"}},
    ),
    "unified objective without a second head": (
        {"supervised": {"objective": "unified"}},
        "supervised.objective",
        {"supervised": {"objective": "unified", "enabled": False}},
    ),
    "a frozen encoder without another head, or with a teacher of dense vectors": (
        {"supervised": {"freeze_encoder": True}},
        "supervised.freeze_encoder",
        {
            "model": {"heads": ALL},
            "supervised": {"freeze_encoder": True, "objective": "unified"},
        },
    ),
    "lexical or multi-vector head from scratch that no stage trains": (
        {"model": {"heads": ALL}},
        "no stage trains lexical",
        {"model": {"heads": ALL}, "supervised": {"objective": "unified"}},
    ),
    "Matryoshka dims wider than the model": (
        {"model": {"settings": {"hidden_size": 32}, "dims": [64]}},
        "model.dims: 64",
        {"model": {"settings": {"hidden_size": 32}, "dims": [32]}},
    ),
    "latent attention whose heads do not divide the width": (
        {"model": {"settings": {"hidden_size": 36}, "pooling": "latent"}},
        "model.latent.heads",
        {"model": {"settings": {"hidden_size": 36}, "pooling": "latent", "latent": {"heads": 4}}},
    ),
    "extended positions together with dynamic NTK": (
        {"model": {"positions": 8192, "dynamic_ntk": {}}},
        "model.positions",
        {"model": {"positions": 8192}},
    ),
    "Matryoshka weights that are not one a dim": (
        {"supervised": {"matryoshka_weights": [1.0]}},
        "supervised.matryoshka_weights",
        {"supervised": {"matryoshka_weights": [1.0]}, "model": {"dims": [8]}},
    ),
    "buckets that do not ascend": (
        {"unsupervised": {"buckets": BUCKETS}},
        "unsupervised.buckets",
        {"unsupervised": {"buckets": BUCKETS[::-1]}},
    ),
    "no negatives at all": (
        {"supervised": {"in_batch_negatives": False}},
        "supervised: in_batch_negatives",
        {"supervised": {"in_batch_negatives": False, "negatives": 1}},
    ),
    "symmetric loss without in-batch negatives": (
        {"supervised": {"in_batch_negatives": False, "negatives": 1, "symmetric": True}},
        "supervised: symmetric",
        {"supervised": {"symmetric": True}},
    ),
    "distillation without a teacher": (
        {"supervised": {"distillation": {}}},
        "supervised.distillation",
        {"supervised": {"distillation": {}}, "teacher": {"model": "t"}},
    ),
    "distillation from the rows' scores without the rows' negatives": (
        {"supervised": {"distillation": {"of": "rows"}, "negatives": 3}},
        "mine.enabled: false",
        {"supervised": {"distillation": {"of": "rows"}, "negatives": 3}, "mine": {"enabled": False}},
    ),
    "m3_kd_loss of anything but the rows' scores, or with a weight": (
        {"supervised": {"distillation": {"loss": "m3_kd_loss"}}, "teacher": {"model": "t"}},
        "supervised.distillation: loss m3_kd_loss needs of: rows",
        {
            "supervised": {"distillation": {"of": "rows", "loss": "m3_kd_loss"}, "negatives": 3},
            "mine": {"enabled": False},
        },
    ),
    "pruning before training from scratch": (
        {"prune": {"when": "before"}},
        "prune.when",
        {"prune": {"when": "before"}, "model": {"base": "b"}},
    ),
    "pooling or mask of a base without a base": (
        {"model": {"base_pooling": "cls"}},
        "model.base_pooling",
        {"model": {"base_pooling": "cls", "base_causal": False, "base": "b"}},
    ),
    "flash attention 2 in fp32": (
        {"runtime": {"attention": "flash_attention_2"}},
        "runtime.attention",
        {"runtime": {"attention": "flash_attention_2", "precision": "bf16"}},
    ),
    "a gate rule against a base that is not scored": (
        {
            "evaluate": {"score_base": False},
            "gate": {"rules": [{"set": "*", "against": "base", "min_gain": 0.0}]},
        },
        "gate.rules",
        {"gate": {"rules": [{"set": "*", "against": "base", "min_gain": 0.0}]}},
    ),
    "a password in an address": (
        {"tracking": {"uri": "https://me:hunter2@mlflow.example.org"}},
        "tracking.uri: holds a password",
        {"tracking": {"uri": "https://mlflow.example.org"}},
    ),
}


def run(values: dict[str, Any]) -> dict[str, Any]:
    return {"name": "t", "data": {"sources": [{"path": "a.jsonl"}]}} | values


def test_every_refusal_has_a_reason_and_an_example() -> None:
    assert [refusal.name for refusal in REFUSALS] == list(EXAMPLES)
    assert len(REFUSALS) < 20
    assert all(refusal.reason.endswith(".") for refusal in REFUSALS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_combination_is_refused_and_its_neighbour_is_not(name: str) -> None:
    wrong, key, right = EXAMPLES[name]
    with pytest.raises(InputError) as error:
        validate_config(run(wrong), where="preset")
    assert key in str(error.value)
    config = validate_config(run(right), where="preset")
    assert not list(find_refusals(config))


def test_one_message_names_all_problems() -> None:
    with pytest.raises(InputError, match=r"(?s)buckets.*prune\.when"):
        validate_config(
            run({"unsupervised": {"buckets": BUCKETS}, "prune": {"when": "before"}}), where="preset"
        )


@pytest.mark.parametrize("preset", preset_names())
def test_no_preset_is_refused(preset: str) -> None:
    assert not list(find_refusals(load_config(preset)))

"""What `embedline plan` says training costs: worked by hand, and sizes as transformers builds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedline.config.load import load_config, validate_config
from embedline.config.schema import RunConfig
from embedline.planning.checks import machine
from embedline.planning.checks.memory import memory_notes
from embedline.planning.checks.recommendations import advice
from embedline.planning.cost import GPUS, SCORES_AT_ONCE, Gpu, Stage, estimate_run
from embedline.planning.cost_table import cost_table as table
from embedline.planning.model_size import _DEFAULTS, backbone_sizes, sizes_from

RATE = 989e12 * 0.4 * 3600  # an H100's operations an hour at 40 %

# A gated transformer of 2 layers × 8, 2 heads, 16 inside: a layer has 4·8² + 3·8·16 = 640 weights in matrices
# and 2·8 in norms.
SETTINGS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
N = 2 * 640
WHOLE = 128 * 8 + 2 * (640 + 16) + 2 * 8


def config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"sources": [{"path": "pairs.jsonl"}]},
        "model": {
            "architecture": "llama",
            "settings": SETTINGS,
            "vocabulary": 128,
            "query_length": 8,
            "document_length": 10,
            **changes.pop("model", {}),
        },
        "pretrain": {"enabled": False},
        "unsupervised": {"enabled": False},
        "supervised": {"steps": 3, "batch": 4, "negatives": 1, "batch_tokens": 64, "resident_tokens": 0},
    }
    for section, section_values in changes.items():
        values[section] = {**values.get(section, {}), **section_values}
    return validate_config(values, where="test")


def only(found: Any) -> Stage:
    assert len(found.stages) == 1
    stage: Stage = found.stages[0]
    return stage


def hours(stage: Stage) -> float:
    assert stage.gpu_hours is not None
    return stage.gpu_hours


def memory(stage: Stage) -> float:
    assert stage.memory_gb is not None
    return stage.memory_gb


def test_a_contrastive_stage_by_hand() -> None:
    stage = only(estimate_run(config()))
    tokens = 4 * (8 + 2 * 10)  # a query, a positive and a negative each
    assert [(b.length, b.batch, b.steps, b.tokens) for b in stage.batches] == [(10, 4, 3.0, tokens)]
    assert stage.tokens == 3 * tokens
    once = 4 * 8 * (6 * N + 12 * 2 * 8 * 8) + 4 * 2 * 10 * (6 * N + 12 * 2 * 8 * 10)
    assert stage.gpu_hours == pytest.approx(3 * once * 4 / 3 / RATE)
    weights = 16 * WHOLE
    states = 64 * 2 * (16 * 8 + 6 * 16) * 2  # a chunk of 64 tokens in fp32
    vectors = 4 * 4 * 3 * (2 * 8 + 3 * 8)  # 12 texts: vector and gradient; unit vector and two gradients
    scores = 4 * 4 * (4 * 4 * 2)
    assert stage.memory_gb == pytest.approx((weights + states + vectors + scores) / 1e9)


def test_the_scores_of_a_large_batch_are_a_block_at_a_time() -> None:
    from embedline.training.objectives import streaming

    assert streaming.SCORES_AT_ONCE == SCORES_AT_ONCE
    one, two = (memory(only(estimate_run(config(supervised={"batch": n})))) for n in (8192, 16384))
    assert (two - one) * 1e9 == pytest.approx(8192 * 4 * 3 * (2 * 8 + 3 * 8))  # vectors alone
    nested = config(model={"dims": [4, 2]}, supervised={"matryoshka": True})
    assert (memory(only(estimate_run(nested))) - memory(only(estimate_run(config())))) * 1e9 == pytest.approx(
        4 * 4 * 3 * 3 * (4 + 2)
    )


def test_processes_share_the_tokens_of_a_step_and_nothing_else() -> None:
    alone = only(estimate_run(config()))
    found = estimate_run(config(runtime={"processes": 4}))
    shared = only(found)  # of 112 tokens, a chunk of 64 is kept alone and 28 in each of four
    assert (memory(alone) - memory(shared)) * 1e9 == pytest.approx((64 - 28) * 2 * (16 * 8 + 6 * 16) * 2)
    assert hours(shared) == hours(alone)
    assert "memory: of each of 4 processes" in table(found)


def test_a_machine_that_is_too_small_is_told_so_with_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(machine, "_GPU_DRIVER", Path("/no/such/file"))
    large = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    values = config(model={"settings": large}, runtime={"processes": 2})
    each = memory(only(estimate_run(values))) + 0.6
    [note] = memory_notes(values, None, 10.0)
    assert note.startswith(
        f"train_supervised may need {2 * each:.1f} GB of memory (2 processes of {each:.1f} GB"
    )
    assert "10.0 GB are available: lower its batch_tokens" in note
    assert memory_notes(values, None, 2 * each + 0.1) == []
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert memory_notes(values, None, 10.0) == []


def test_what_gradcache_keeps_is_encoded_once() -> None:
    twice = only(estimate_run(config()))
    once = only(estimate_run(config(supervised={"resident_tokens": 1000})))
    half = only(estimate_run(config(supervised={"resident_tokens": 56})))  # of 112
    assert hours(twice) / hours(once) == pytest.approx(4 / 3)
    assert hours(half) / hours(once) == pytest.approx(7 / 6)


def test_what_memory_has_room_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    twice, states = only(estimate_run(config())), 2 * (16 * 8 + 6 * 16) * 2  # bytes of a token
    auto = config(supervised={"resident_tokens": "auto"})
    assert hours(twice) / hours(only(estimate_run(auto))) == pytest.approx(4 / 3)
    monkeypatch.setitem(GPUS, "small", Gpu(989e12, 16 * WHOLE + 2 * 56 * states))
    half = only(estimate_run(auto, gpu="small"))
    assert hours(twice) / hours(half) == pytest.approx(4 / 3 / (7 / 6))
    assert memory(half) == memory(twice)  # it is content with less
    monkeypatch.setitem(GPUS, "tiny", Gpu(989e12, 0))
    assert hours(only(estimate_run(auto, gpu="tiny"))) == hours(twice)
    both = config(supervised={"resident_tokens": "auto"}, runtime={"processes": 2})
    monkeypatch.setitem(GPUS, "small", Gpu(989e12, 16 * WHOLE + 56 * states))
    assert hours(only(estimate_run(both, gpu="small"))) == hours(half)


def test_masked_language_modelling_by_hand() -> None:
    found = estimate_run(
        config(
            supervised={"enabled": False},
            pretrain={"enabled": True, "objective": "mlm", "steps": 5, "batch": 6, "length": 16,
                      "encoder_mask": 0.25, "batch_tokens": 64},
            runtime={"precision": "bf16"},
        )
    )  # fmt: skip
    stage = only(found)
    assert stage.tokens == 5 * 6 * 16
    token = 6 * N + 12 * 2 * 8 * 16 + 6 * 0.25 * 8 * 128  # a quarter of the tokens meet the vocabulary
    assert stage.gpu_hours == pytest.approx(stage.tokens * token / RATE)
    states, logits = 64 * 2 * (16 * 8 + 6 * 16), 64 * 0.25 * 128 * 4 * 3
    assert stage.memory_gb == pytest.approx((16 * WHOLE + 2 * N + states + logits) / 1e9)


def test_retromae_pays_for_its_decoder() -> None:
    given = {
        "enabled": True,
        "steps": 1,
        "batch": 1,
        "length": 16,
        "decoder_targets": 0.5,
        "encoder_mask": 0.25,
    }
    stage = only(estimate_run(config(supervised={"enabled": False}, pretrain=given)))
    token = 6 * N + 12 * 2 * 8 * 16  # the encoder
    token += 6 * 640 + 12 * 8 * 16  # one layer more
    token += 6 * (0.25 + 0.5) * 8 * 128
    assert stage.gpu_hours == pytest.approx(16 * token / RATE)


def test_buckets_share_the_steps_and_the_largest_needs_the_memory() -> None:
    given = {"buckets": [{"tokens": 8, "batch": 8}, {"tokens": 10, "batch": 4}], "steps": 4}
    stage = only(estimate_run(config(supervised=given)))
    assert [(b.length, b.batch, b.steps, b.tokens) for b in stage.batches] == [
        (8, 8, 2.0, 8 * 3 * 8),
        (10, 4, 2.0, 4 * (8 + 20)),
    ]
    alone = [only(estimate_run(config(supervised={"buckets": [b], "steps": 2}))) for b in given["buckets"]]  # type: ignore[attr-defined]
    assert stage.gpu_hours == pytest.approx(sum(map(hours, alone)))
    assert stage.memory_gb == max(map(memory, alone))


def test_multi_vector_scores_and_states_are_counted() -> None:
    heads = {"heads": ["dense", "lexical", "multi_vector"], "multi_vector_width": 8}
    dense = only(estimate_run(config()))
    unified = only(estimate_run(config(model=heads, supervised={"objective": "unified"})))
    late = 8 * (4 * 8) * (4 * 2 * 10) * 8  # query tokens × document tokens × width, twice forward, once back
    assert hours(unified) - hours(dense) == pytest.approx(3 * late / RATE)
    more = 8 * 4 * 3 * (10 * 8) + 3 * 4 * 4 * (4 * 4 * 2)  # token vectors; three more matrices of scores
    assert memory(unified) - memory(dense) == pytest.approx(more / 1e9)


def test_a_frozen_encoder_costs_its_forward_pass_and_no_moments() -> None:
    heads = {"heads": ["dense", "lexical"]}
    given = {"objective": "unified", "resident_tokens": 100_000}
    whole = only(estimate_run(config(model=heads, supervised=given)))
    frozen = only(estimate_run(config(model=heads, supervised=given | {"freeze_encoder": True})))
    assert hours(frozen) == pytest.approx(hours(whole) / 3)
    assert memory(frozen) < memory(whole)


def test_adapters_cost_less_than_all_weights() -> None:
    whole = only(estimate_run(config()))
    lora = only(estimate_run(config(model={"lora": {"rank": 4}})))
    assert hours(lora) < hours(whole)
    assert memory(lora) < memory(whole)


def test_layers_dropped_before_are_not_trained(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    values = {**SETTINGS, "num_hidden_layers": 4, "vocab_size": 128, "model_type": "llama"}
    (base / "config.json").write_text(json.dumps(values))
    pruned = config(
        model={"base": str(base)},
        prune={"when": "before", "drop_share": 0.5, "heal_steps": 2, "heal_batch": 4},
    )
    found = estimate_run(pruned, base)
    assert found.layers == 2
    assert found.parameters == WHOLE
    healing, training = found.stages
    assert training.gpu_hours == pytest.approx(only(estimate_run(config())).gpu_hours)
    student, teacher = 6 * N + 12 * 2 * 8 * 10, 6 * 2 * N + 12 * 4 * 8 * 10
    assert healing.gpu_hours == pytest.approx(2 * 4 * 10 * (student + teacher / 3) / RATE)


def test_the_gpu_and_what_it_reaches_are_the_users() -> None:
    h100 = only(estimate_run(config()))
    a100 = only(estimate_run(config(), gpu="a100", utilisation=0.2))
    assert hours(a100) / hours(h100) == pytest.approx(989 * 0.4 / (312 * 0.2))


def test_without_sizes_tokens_are_told_and_hours_are_not() -> None:
    found = estimate_run(config(model={"base": "somebody/model", "settings": {}}))
    stage = only(found)
    assert stage.tokens == 336
    assert stage.gpu_hours is None
    said = table(found)
    assert "the sizes of somebody/model are not known here" in said
    assert "h100" not in said


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("xlm-roberta", {"vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24,
                         "num_attention_heads": 16, "intermediate_size": 4096, "type_vocab_size": 1,
                         "max_position_embeddings": 514}),
        ("bert", {"vocab_size": 1000}),
        ("nomic_bert", {}),
        ("modernbert", {}),
        ("llama", {"num_key_value_heads": 8, "hidden_size": 1024, "intermediate_size": 2048}),
        ("qwen3", {"hidden_size": 1024, "head_dim": 128, "num_attention_heads": 16, "num_key_value_heads": 8,
                   "intermediate_size": 3072, "num_hidden_layers": 4}),
        ("mistral", {"num_hidden_layers": 2}),
        ("gemma3_text", {"num_hidden_layers": 2}),
    ],
)  # fmt: skip
def test_parameters_are_those_that_transformers_would_make(
    architecture: str, settings: dict[str, Any]
) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    if "num_hidden_layers" not in settings:
        settings = {**settings, "num_hidden_layers": 3}
    built = AutoConfig.for_model(architecture, **settings)
    if architecture == "modernbert":
        built.layer_types = built.layer_types[:3]
    with torch.device("meta"):
        model = AutoModel.from_config(built)
    exact = sum(parameter.numel() for parameter in model.parameters())
    found = sizes_from(built.to_dict())
    assert found is not None
    assert found.parameters == pytest.approx(exact, rel=0.002)
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    pooler = built.hidden_size**2 if found.plain else 0
    assert found.matrices == pytest.approx(linear - pooler, rel=0.002)
    assert (found.vocabulary + found.tables) * found.width == pytest.approx(tables, rel=0.002)


@pytest.mark.parametrize("architecture", sorted(_DEFAULTS))
def test_the_defaults_kept_here_are_transformers_own(architecture: str) -> None:
    from transformers import AutoConfig

    values = AutoConfig.for_model(architecture).to_dict()
    assert _DEFAULTS[architecture] == {key: values[key] for key in _DEFAULTS[architecture]}


def test_a_mixture_of_experts_is_not_guessed_at() -> None:
    assert sizes_from({**SETTINGS, "vocab_size": 100, "n_routed_experts": 64}) is None


def test_a_base_at_hand_counts_and_not_what_the_preset_says_of_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, "vocab_size": 64, "model_type": "llama"}))
    model = config(model={"base": "x", "settings": {**SETTINGS, "hidden_size": 16, "vocab_size": 128}}).model
    at_hand, said = backbone_sizes(model, tmp_path), backbone_sizes(model, None)
    assert at_hand is not None
    assert said is not None
    assert (at_hand.width, at_hand.vocabulary, said.width, said.vocabulary) == (8, 64, 16, 128)


@pytest.mark.parametrize(
    ("preset", "published"), [("bge-m3", 568e6), ("nomic-embed", 137e6), ("giga-embeddings", 2e9)]
)
def test_the_presets_models_have_the_published_sizes(preset: str, published: float) -> None:
    found = estimate_run(load_config(preset))
    assert found.parameters == pytest.approx(published, rel=0.05)
    assert found.layers == {"bge-m3": 24, "nomic-embed": 12, "giga-embeddings": 27}[preset]


def test_a_batch_that_no_gpu_holds_is_said() -> None:
    said = table(estimate_run(load_config("bge-m3")))
    assert "note: train_supervised needs" in said
    assert f"has {GPUS['h100'].memory / 1e9:.0f} GB" in said


def rows(folder: Path, count: int) -> Path:
    lines = "".join(json.dumps({"query": f"q{i}", "pos": [f"p{i}"]}) + "\n" for i in range(count))
    (folder / "pairs.jsonl").write_text(lines)
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"supervised": {"negatives": 8}}, "supervised.negatives: 8; more than 7 hard negatives"),
        ({"supervised": {"steps": 20}}, "supervised.steps: 8.0 passes over at most 10 supervised records"),
        (
            {
                "model": {"heads": ["dense", "lexical"]},
                "supervised": {"objective": "unified", "self_distillation": False},
            },
            "53.9 to 36.7",
        ),
        (
            {"model": {"settings": {**SETTINGS, "hidden_size": 768}, "dims": [512, 64]},
             "supervised": {"matryoshka": True}},
            "512 −0.32, 64 −6.18",
        ),
        ({"prune": {"when": "after", "drop_share": 0.5}}, "prune.drop_share: 0.5; a fifth"),
    ],
)  # fmt: skip
def test_what_the_papers_warn_of(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    found = advice(config(**changes), rows(tmp_path, 10))
    assert len(found) == 1
    assert said in found[0]


def test_nothing_is_warned_of_without_a_reason(tmp_path: Path) -> None:
    assert advice(config(supervised={"negatives": 7, "steps": 2}), rows(tmp_path, 10)) == []
    assert advice(config(supervised={"steps": 1000}), None) == []
    assert advice(config(supervised={"steps": 1000}), tmp_path / "elsewhere") == []

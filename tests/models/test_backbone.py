from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from embedline.config.model import DynamicNTK, ModelConfig
from embedline.errors import InputError
from embedline.models.backbone import new_backbone, prepare_backbone
from embedline.models.bidirectional import is_bidirectional
from embedline.models.demo_decoder import write_demo_decoder
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.positions import max_tokens
from embedline.models.rotary import has_dynamic_ntk
from embedline.models.tokenizer import DECODER_SPECIAL, train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DECODERS = ["llama", "qwen2", "qwen3", "mistral", "gemma3_text"]
ARCHITECTURES = ["modernbert", "nomic_bert", "bert", "xlm-roberta", "electra", *DECODERS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_new_backbone_has_no_dropout(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    model = new_backbone(architecture, SIZES, tokenizer, 0)
    ids = torch.randint(5, 300, (2, 10))
    states = [
        mode(model)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        for mode in (torch.nn.Module.train, torch.nn.Module.train, torch.nn.Module.eval)
    ]
    assert torch.equal(states[0], states[1])
    torch.testing.assert_close(states[0], states[2])


def test_configured_dropout_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    model = new_backbone("bert", {**SIZES, "hidden_dropout_prob": 0.5}, tokenizer, 0).train()
    ids = torch.randint(5, 300, (1, 10))
    assert not torch.equal(model(input_ids=ids).last_hidden_state, model(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize("architecture", ["modernbert", "bert"])
def test_a_seed_gives_the_same_weights(tokenizer: PreTrainedTokenizerFast, architecture: str) -> None:
    one, same, other = (new_backbone(architecture, SIZES, tokenizer, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_new_backbone_fits_its_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
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
        ("modernbret", {}, "model.architecture", "has no architecture 'modernbret'"),
        ("bert", {"hidden": 32}, "model.settings", "bert has no setting 'hidden'"),
        ("bert", {**SIZES, "num_attention_heads": 5}, "model.settings", "not a multiple of"),
        ("bert", {"hidden_size": "big"}, "model.settings", "expected int, got str"),
        ("modernbert", {"num_hidden_layers": "two"}, "model.settings", "modernbert refuses these values"),
        ("bert", {**SIZES, "vocab_size": 64}, "model.settings", "vocab_size 64 is less than the tokenizer's"),
        (
            "llama",
            {**SIZES, "num_key_value_heads": 3},
            "model.settings",
            "llama cannot run with these values",
        ),
        ("bert", {**SIZES, "num_attention_heads": 0}, "model.settings", "not a multiple of"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1}, "model.architecture", "mamba stays causal"),
        ("bart", {}, "model.architecture", "bart cannot be built: .*for the encoder-decoder bart"),
    ],
)
def test_invalid_architectures_and_settings_are_named(
    tokenizer: PreTrainedTokenizerFast, architecture: str, settings: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        new_backbone(architecture, settings, tokenizer, 0)
    assert error.value.where == where


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_new_decoder_is_bidirectional_also_after_a_reload(
    tokenizer: PreTrainedTokenizerFast, architecture: str, tmp_path: Path
) -> None:
    model = new_backbone(architecture, SIZES, tokenizer, 0)
    assert model.config.is_causal is False
    assert model.config.num_key_value_heads == 2
    assert getattr(model.config, "head_dim", 16) == 16
    assert "sliding_attention" not in (getattr(model.config, "layer_types", None) or [])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert is_bidirectional(AutoModel.from_pretrained(tmp_path))
    assert load_embedder(tmp_path, as_base=True).backbone.config.is_causal is False


def test_configured_windows_and_grouped_keys_are_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    windows = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    model = new_backbone(
        "gemma3_text", {**SIZES, **windows, "num_key_value_heads": 1, "head_dim": 8}, tokenizer, 0
    )
    assert model.config.layer_types == windows["layer_types"]
    assert (model.config.num_key_value_heads, model.config.head_dim) == (1, 8)


def test_preparing_follows_the_config_and_is_idempotent(tokenizer: PreTrainedTokenizerFast) -> None:
    learned = new_backbone("xlm-roberta", {**SIZES, "max_position_embeddings": 66}, tokenizer, 0)
    rotary = new_backbone("nomic_bert", SIZES, tokenizer, 0)
    for _ in range(2):
        prepare_backbone(learned, tokenizer, ModelConfig(architecture="xlm-roberta", positions=200))
        prepare_backbone(rotary, tokenizer, ModelConfig(dynamic_ntk=DynamicNTK(factor=2, trained_length=64)))
        assert max_tokens(learned) == 200
        assert has_dynamic_ntk(rotary.config)
        assert rotary.config.max_position_embeddings == 64


@pytest.mark.parametrize(
    ("architecture", "settings", "where"),
    [
        ("nomic_bert", {"positions": 8192}, "model.positions"),
        ("bert", {"dynamic_ntk": {"factor": 2.0, "trained_length": 64}}, "model.dynamic_ntk"),
    ],
)
def test_unsupported_changes_of_a_backbone_are_named(
    tokenizer: PreTrainedTokenizerFast, architecture: str, settings: dict[str, Any], where: str
) -> None:
    backbone = new_backbone(architecture, SIZES, tokenizer, 0)
    with pytest.raises(InputError) as error:
        prepare_backbone(backbone, tokenizer, ModelConfig.model_validate(settings))
    assert error.value.where == where


def test_a_tokenizer_that_does_not_fit_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = new_backbone("bert", SIZES, tokenizer, 0)
    larger = train_tokenizer(["а б в г д", "one two three four five six seven"] * 9, 300)
    larger.add_tokens([f"<extra{i}>" for i in range(600)])
    with pytest.raises(InputError, match="less than the tokenizer's") as error:
        prepare_backbone(backbone, larger, ModelConfig(base="some/base"))
    assert error.value.where == "model.base"
    silent = train_tokenizer(["one two"], 300, special=DECODER_SPECIAL)
    silent.pad_token = None
    with pytest.raises(InputError, match="no pad token") as error:
        prepare_backbone(backbone, silent, ModelConfig(base="some/base"))
    assert error.value.where == "model.base"
    assert '"pad_token": "</s>"' in error.value.fix


def test_the_demo_decoder_is_a_causal_checkpoint_that_becomes_an_embedder(tmp_path: Path) -> None:
    write_demo_decoder(tmp_path / "base")
    plain = AutoModel.from_pretrained(tmp_path / "base")
    assert not is_bidirectional(plain)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.decode(tokenizer("Возврат товара")["input_ids"]).startswith("<s>")
    assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id)
    assert tokenizer.cls_token is None
    prepare_backbone(plain, tokenizer, ModelConfig(base="demo:decoder"))
    assert is_bidirectional(plain)
    embedder = load_embedder(tmp_path / "base", as_base=True)
    assert is_bidirectional(embedder.backbone)
    save_embedder(embedder, tmp_path / "model")
    again = load_embedder(tmp_path / "model")
    assert (again.encode(["Возврат"]) == embedder.encode(["Возврат"])).all()
    assert is_bidirectional(AutoModel.from_pretrained(tmp_path / "model"))


def test_a_seed_gives_the_same_demo_decoder(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        write_demo_decoder(tmp_path / name, seed)
    assert torch.equal(torch.rand(1), expected)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "model.safetensors" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]

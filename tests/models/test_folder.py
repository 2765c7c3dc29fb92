from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer, Gemma3Config, Gemma3ForConditionalGeneration

from embedline.config.model import HybridWeights, LatentConfig, LoraConfig, ModelConfig, Prompt
from embedline.errors import InputError
from embedline.models.backbone import prepare_backbone
from embedline.models.bidirectional import is_bidirectional
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import (
    CARD,
    load_embedder,
    read_lineage,
    save_embedder,
    spec_from_config,
)
from embedline.models.heads import Encoded
from embedline.models.language_head import load_language_head
from embedline.models.lora import add_lora
from embedline.models.pooling import POOLING
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import DECODER_SPECIAL, train_tokenizer


@pytest.fixture(scope="module")
def saved(make_embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder; tests must not write here."""
    folder = tmp_path_factory.mktemp("model")
    save_embedder(make_embedder(), folder, lineage=[{"step": "pretrain"}])
    return folder


def spec_of(folder: Path) -> EmbedderSpec:
    return load_embedder(folder).spec


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert", "bert"])
def test_three_loaders_give_one_vector(
    make_embedder, texts: list[str], tmp_path: Path, architecture: str, pooling: str
) -> None:
    embedder = make_embedder(architecture, pooling)
    save_embedder(embedder, tmp_path)
    expected = embedder.encode(texts)
    again = load_embedder(tmp_path)
    assert again.spec == embedder.spec
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-6)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), expected, atol=1e-5)
    backbone = AutoModel.from_pretrained(tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)(
        texts, padding=True, truncation=True, max_length=40, return_tensors="pt"
    )
    with torch.no_grad():
        states = backbone(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    pooled = POOLING[embedder.spec.pooling](states, batch["attention_mask"])
    vectors = torch.nn.functional.normalize(pooled, dim=-1)
    np.testing.assert_allclose(vectors.numpy(), expected, atol=1e-5)


def test_sentence_transformers_puts_our_prompts_before_texts(saved: Path, make_embedder) -> None:
    embedder, peer = make_embedder(), SentenceTransformer(str(saved), device="cpu")
    written = json.loads((saved / "config_sentence_transformers.json").read_text())
    named = {key: written["prompts"][key] for key in ("query", "document", "faq", "faq-document")}
    assert named == {
        "query": "search_query: ",
        "document": "search_document: ",
        "faq": "Instruct: ответь\nQuery: ",
        "faq-document": "",
    }
    short = ["Как настроить почту?", "VPN"]
    for side, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        prompt = embedder.spec.prompts.prompt(side)
        assert prompt
        ours = embedder.encode(short, prompt=prompt, max_length=getattr(embedder.spec, f"{side}_length"))
        np.testing.assert_allclose(encode(short), ours, atol=1e-5)
    faq = embedder.spec.prompts.prompt("query", name="faq")
    np.testing.assert_allclose(
        peer.encode(short, prompt_name="faq"), embedder.encode(short, prompt=faq), atol=1e-5
    )


def test_the_card_describes_the_model(saved: Path) -> None:
    card = json.loads((saved / CARD).read_text())
    assert card["dims"] == [16, 8]
    assert card["width"] == 32
    assert card["lineage"] == read_lineage(saved) == [{"step": "pretrain"}]
    assert len(card["index_version"]) == 16
    assert not list(saved.rglob("*.bin"))


def test_encoding_does_not_change_what_is_saved(make_embedder, saved: Path, tmp_path: Path) -> None:
    embedder = make_embedder()
    embedder.tokenize(["слово " * 100], max_length=8)
    save_embedder(embedder, tmp_path, lineage=[{"step": "pretrain"}])
    for file in saved.rglob("*.*"):
        assert file.read_bytes() == (tmp_path / file.relative_to(saved)).read_bytes(), file.name


def test_other_weights_are_another_index_version(make_embedder, saved: Path, tmp_path: Path) -> None:
    embedder = make_embedder("modernbert", num_hidden_layers=1)
    save_embedder(embedder, tmp_path)
    assert (
        json.loads((tmp_path / CARD).read_text())["index_version"]
        != json.loads((saved / CARD).read_text())["index_version"]
    )


def test_a_given_spec_replaces_the_folders(saved: Path) -> None:
    spec = replace(spec_of(saved), document_length=8, prompts=PromptTable())
    assert load_embedder(saved, spec=spec).spec == spec


def test_the_configs_dims_keep_the_order_of_their_weights() -> None:
    model = ModelConfig(dims=[16, 64, 32], pooling="cls", query_length=8, document_length=9)
    spec = spec_from_config(model, PromptTable({"default": Prompt(query="q")}))
    assert (spec.dims, spec.pooling, spec.query_length, spec.document_length) == ((16, 64, 32), "cls", 8, 9)


def damage(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    match what:
        case "no config":
            (folder / "config.json").unlink()
        case "pickle":
            weights.unlink()
            torch.save({}, folder / "pytorch_model.bin")
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "garbage":
            weights.write_bytes(b"not safetensors")
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()
        case "broken config":
            (folder / "config.json").write_text("{")
        case "other architecture":
            edit(folder / "config.json", model_type="bert", architectures=["BertModel"])
        case "other size":
            edit(folder / "config.json", intermediate_size=128)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "it has no config.json"),
        ("pickle", "pickled weights are not loaded"),
        ("cut", "cannot be loaded"),
        ("garbage", "cannot be loaded"),
        ("no tokenizer", "has no tokenizer: no tokenizer.json"),
        ("broken config", "cannot be loaded"),
        ("other architecture", r"lacks \d+ weights"),
        ("other size", "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_named(copy: Path, what: str, message: str) -> None:
    damage(copy, what)
    with pytest.raises(InputError, match=message) as error:
        load_embedder(copy)
    assert str(copy) in str(error.value)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_third_party_poolings_are_read(copy: Path, pooling: dict[str, Any], expected: str) -> None:
    (copy / CARD).unlink()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    spec = spec_of(copy)
    assert (spec.pooling, spec.query_length, spec.document_length) == (expected, 16, 40)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "mean", "include_prompt": False},
    ],
)
def test_an_unsupported_pooling_is_refused(copy: Path, pooling: dict[str, Any]) -> None:
    (copy / CARD).unlink()
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(InputError, match="Embedline loads mean, cls, last"):
        load_embedder(copy)


def test_an_unsupported_module_is_refused(copy: Path) -> None:
    (copy / CARD).unlink()
    modules = json.loads((copy / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "cnn", "path": "2_CNN", "type": "sentence_transformers.models.CNN"})
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="a module that Embedline does not have: CNN"):
        load_embedder(copy)


GIGA = """
from transformers import LlamaConfig, LlamaModel


class GigaConfig(LlamaConfig):
    model_type = "giga-like"


class GigaModel(LlamaModel):
    config_class = GigaConfig
"""


@pytest.fixture
def with_own_code(make_embedder, tmp_path: Path) -> Path:
    """A decoder that transformers does not have, as its authors would publish it."""
    folder = tmp_path / "giga"
    embedder = make_embedder("llama", num_key_value_heads=1)
    embedder.backbone.config.is_causal = True
    embedder.backbone.save_pretrained(folder)
    embedder.tokenizer.save_pretrained(folder)
    auto_map = {"AutoConfig": "modeling_giga.GigaConfig", "AutoModel": "modeling_giga.GigaModel"}
    edit(folder / "config.json", model_type="giga-like", architectures=["GigaModel"], auto_map=auto_map)
    (folder / "modeling_giga.py").write_text(GIGA)
    return folder


def test_code_in_a_folder_runs_only_when_trusted(with_own_code: Path) -> None:
    with pytest.raises(InputError, match="trust_remote_code"):
        load_embedder(with_own_code)


@pytest.mark.parametrize("pooling", ["mean", "latent"])
def test_saving_copies_the_backbones_own_code(
    with_own_code: Path, texts: list[str], tmp_path: Path, pooling: str
) -> None:
    base = load_embedder(with_own_code, trust_remote_code=True, as_base=True)
    assert is_bidirectional(base.backbone)
    spec = replace(base.spec, pooling=pooling, latent=LatentConfig(latents=5, heads=4))
    embedder = base.with_spec(spec).eval()
    ours = tmp_path / "ours"
    save_embedder(embedder, ours)
    shutil.rmtree(with_own_code)
    with pytest.raises(InputError, match="trust_remote_code"):
        load_embedder(ours)
    again = load_embedder(ours, trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(texts), embedder.encode(texts))
    peer = SentenceTransformer(str(ours), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(peer.encode(texts), embedder.encode(texts), atol=1e-5)


def heads_of(embedder: Embedder, texts: list[str]) -> Encoded:
    with torch.no_grad():
        return embedder.eval().represent(**embedder.pad(embedder.tokenize(texts, max_length=40)))


@pytest.mark.parametrize("pooling", ["mean", "latent"])
def test_heads_are_saved_and_loaded(make_embedder, texts: list[str], tmp_path: Path, pooling: str) -> None:
    embedder = make_embedder()
    spec = replace(
        embedder.spec,
        pooling=pooling,
        latent=LatentConfig(latents=5, heads=2),
        heads=("dense", "lexical", "multi_vector"),
        multi_vector_width=8,
        hybrid=HybridWeights(lexical=0.5),
    )
    embedder = embedder.with_spec(spec)
    save_embedder(embedder, tmp_path)
    again = load_embedder(tmp_path)
    assert again.spec == spec
    for one, other in zip(heads_of(embedder, texts), heads_of(again, texts), strict=True):
        assert torch.equal(one, other)
    only_lexical = load_embedder(tmp_path, spec=replace(spec, heads=("dense", "lexical")))
    assert heads_of(only_lexical, texts).tokens is None
    assert torch.equal(heads_of(only_lexical, texts).lexical, heads_of(embedder, texts).lexical)


@pytest.mark.parametrize("pooling", ["mean", "latent", "mcls"])
def test_saving_does_not_change_the_model(make_embedder, tmp_path: Path, pooling: str) -> None:
    embedder = make_embedder()
    embedder = embedder.with_spec(replace(embedder.spec, pooling=pooling, heads=("dense", "lexical"))).train()
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.add_(torch.randn_like(parameter))  # as after a training, not as initialised
    before = {name: weight.clone() for name, weight in embedder.state_dict().items()}
    save_embedder(embedder, tmp_path)
    assert embedder.training
    assert embedder.state_dict().keys() == before.keys()
    for name, weight in embedder.state_dict().items():
        assert torch.equal(weight, before[name]), name
    for name, weight in load_embedder(tmp_path).state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_latent_attention_loads_under_its_former_weight_names(
    make_embedder, texts: list[str], tmp_path: Path
) -> None:
    embedder = make_embedder()
    spec = replace(embedder.spec, pooling="latent", latent=LatentConfig(latents=5, heads=2))
    embedder = embedder.with_spec(spec).eval()
    save_embedder(embedder, tmp_path)
    former = {"query": "ask", "key": "look", "value": "take", "output": "mix"}
    weights = {}
    for name, weight in load_file(tmp_path / "model.safetensors").items():
        module, _, rest = name.removeprefix("latent_attention.").partition(".")
        renamed = name.startswith("latent_attention.") and module in former
        weights[f"latent_attention.{former[module]}.{rest}" if renamed else name] = weight
    assert sum(name.split(".")[1] in former.values() for name in weights) == 4
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(load_embedder(tmp_path).encode(texts), embedder.encode(texts))
    theirs = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(theirs).__module__.startswith("transformers_modules.")  # the folder's own code, not ours
    for name, weight in theirs.latent_attention.state_dict().items():
        assert torch.equal(weight, embedder.latent_attention.state_dict()[name]), name
    peer = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(peer.encode(texts), embedder.encode(texts), atol=1e-5)
    save_embedder(load_embedder(tmp_path), tmp_path / "again")
    assert "latent_attention.query.weight" in load_file(tmp_path / "again" / "model.safetensors")


def test_adapters_are_merged_when_a_model_is_saved(make_embedder, texts: list[str], tmp_path: Path) -> None:
    embedder = make_embedder()
    plain = embedder.encode(texts)
    add_lora(embedder.backbone, LoraConfig(rank=4, alpha=8))
    with torch.no_grad():
        for name, parameter in embedder.backbone.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    adapted = embedder.encode(texts)
    assert np.abs(adapted - plain).max() > 1e-3
    save_embedder(embedder, tmp_path)
    np.testing.assert_allclose(load_embedder(tmp_path).encode(texts), adapted, atol=1e-5)


def test_other_heads_are_another_index_version(make_embedder, tmp_path: Path) -> None:
    spec = replace(make_embedder().spec, heads=("dense", "multi_vector"))
    versions = set()
    for seed in (0, 0, 1):
        save_embedder(make_embedder().with_spec(spec, seed=seed), tmp_path / str(seed))
        versions.add(json.loads((tmp_path / str(seed) / CARD).read_text())["index_version"])
    assert len(versions) == 2


def test_mcls_is_another_index_version_over_the_same_weights(make_embedder, tmp_path: Path) -> None:
    versions = set()
    for every in (8, 16):
        embedder = make_embedder().with_spec(replace(make_embedder().spec, pooling="mcls", mcls_every=every))
        save_embedder(embedder, tmp_path / str(every))
        versions.add(json.loads((tmp_path / str(every) / CARD).read_text())["index_version"])
    assert len(versions) == 2


def test_saved_files_do_not_depend_on_the_source_folder(saved: Path, tmp_path: Path) -> None:
    for copy in ("one", "other"):
        base = load_embedder(Path(shutil.copytree(saved, tmp_path / copy)))
        save_embedder(base.with_spec(replace(base.spec, pooling="latent")), tmp_path / f"{copy} saved")
    for file in (tmp_path / "one saved").rglob("*.*"):
        twin = tmp_path / "other saved" / file.relative_to(tmp_path / "one saved")
        assert file.read_bytes() == twin.read_bytes(), file.name


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"heads": ("dense", "lexical")}, r"model\.heads: .* has no lexical head"),
        ({"heads": ("dense", "multi_vector")}, r"model\.heads: .* has no multi_vector head"),
        ({"pooling": "latent"}, r"model\.pooling: .* has no latent attention"),
        ({"document_length": 9000}, r"model\.document_length: .* 9000 tokens"),
        ({"query_length": 9000}, r"model\.query_length: .* 9000 tokens"),
        ({"pooling": "mcls", "mcls_every": 8, "document_length": 8190}, r"model\.document_length: .* 9213"),
    ],
)
def test_missing_parts_are_refused_by_the_settings_name(
    saved: Path, change: dict[str, Any], setting: str
) -> None:
    with pytest.raises(InputError, match=setting):
        load_embedder(saved, spec=replace(spec_of(saved), **change))


def test_a_tokenizer_without_pad_token_is_refused(copy: Path) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"tokenizer_config\.json: pad_token: .* no pad token"):
        load_embedder(copy)


def test_a_tokenizer_larger_than_the_model_is_refused(copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens([f"word{i}" for i in range(400)])
    tokenizer.save_pretrained(copy)
    with pytest.raises(InputError, match=r"config\.json: vocab_size: the tokenizer has \d+ tokens"):
        load_embedder(copy)


def test_a_tokenizer_that_would_load_differently_is_refused(make_embedder, tmp_path: Path) -> None:
    """transformers builds its own tokenizer for every qwen2 folder."""
    embedder = make_embedder("qwen2", num_key_value_heads=1)
    with pytest.raises(InputError, match=r"model\.architecture: transformers loads qwen2"):
        save_embedder(embedder, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_saved_model_that_became_causal_is_refused(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("llama", num_key_value_heads=1), tmp_path)
    load_embedder(tmp_path)
    edit(tmp_path / "config.json", is_causal=True)
    with pytest.raises(InputError, match="stays causal"):
        load_embedder(tmp_path)


def test_a_bare_language_model_is_made_bidirectional_as_a_base(make_embedder, tmp_path: Path) -> None:
    embedder = make_embedder("llama", num_key_value_heads=1)
    embedder.backbone.config.is_causal = True
    embedder.backbone.save_pretrained(tmp_path)
    embedder.tokenizer.save_pretrained(tmp_path)
    assert is_bidirectional(load_embedder(tmp_path, as_base=True).backbone)


def test_a_causal_third_party_embedding_model_stays_causal(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("llama", "last", num_key_value_heads=1), tmp_path)
    edit(tmp_path / "config.json", is_causal=True)
    (tmp_path / CARD).unlink()
    embedder = load_embedder(tmp_path)
    assert not is_bidirectional(embedder.backbone)
    texts = ["почта", "The printer does not answer."]
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(peer.encode(texts), embedder.encode(texts), atol=1e-5)


def test_a_causal_base_becomes_bidirectional_with_a_warning(
    make_embedder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_embedder(make_embedder("llama", "last", num_key_value_heads=1), tmp_path)
    edit(tmp_path / "config.json", is_causal=True)
    (tmp_path / CARD).unlink()
    embedder = load_embedder(tmp_path)
    assert not caplog.records
    for _ in range(2):  # the second call changes nothing and logs nothing
        prepare_backbone(embedder.backbone, embedder.tokenizer, ModelConfig(base="x"))  # type: ignore[call-arg]
    assert is_bidirectional(embedder.backbone)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "causal mask" in caplog.text


def test_the_text_part_of_an_image_model_is_loaded(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["почта", "The printer does not answer."] * 3, 320, special=DECODER_SPECIAL)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "vocab_size": 384}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text | {"pad_token_id": tokenizer.pad_token_id},
            vision_config=vision | {"image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4,
        )
    )
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    embedder = load_embedder(tmp_path, as_base=True)
    theirs = whole.model.language_model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in embedder.backbone.state_dict().items())
    assert is_bidirectional(embedder.backbone)
    assert embedder.spec.document_length == 512
    head = load_language_head(tmp_path, tokenizer)
    states = torch.randn(2, 3, 32)
    assert head is not None
    torch.testing.assert_close(head(states), whole.lm_head(states))
    save_embedder(embedder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "gemma3_text"
    again = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(again.encode(["почта"]), embedder.encode(["почта"]), atol=1e-5)


OTHERS: dict[str, dict[str, Any]] = {  # two have no sdpa, of the third only the encoder is loaded
    "mpnet": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "deberta-v2": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "t5": {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16},
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("pooling", ["mean", "latent"])
def test_any_encoder_of_transformers_is_loaded_and_saved(
    tokenizer, texts: list[str], tmp_path: Path, kind: str, pooling: str
) -> None:
    config = AutoConfig.for_model(kind, vocab_size=512, pad_token_id=tokenizer.pad_token_id, **OTHERS[kind])
    theirs = AutoModel.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    loaded = load_embedder(tmp_path / "theirs")
    embedder = loaded.with_spec(
        replace(loaded.spec, pooling=pooling, latent=LatentConfig(latents=5, heads=2))
    )
    batch = embedder.pad(embedder.tokenize(texts, max_length=40))
    encoder = theirs.encoder if kind == "t5" else theirs
    with torch.no_grad():
        states, _ = embedder.eval().states(**batch)
        torch.testing.assert_close(states, encoder(**batch).last_hidden_state, atol=1e-6, rtol=0)
    save_embedder(embedder, tmp_path / "ours")
    np.testing.assert_array_equal(load_embedder(tmp_path / "ours").encode(texts), embedder.encode(texts))
    peer = SentenceTransformer(str(tmp_path / "ours"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(peer.encode(texts), embedder.encode(texts), atol=1e-5)


def test_an_architecture_without_flash_attention_is_loaded_without_it(
    tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU with the package, auto chooses flash attention 2 for every model."""
    monkeypatch.setattr("embedline.models.folder.attention_for", lambda *_: "flash_attention_2")
    config = AutoConfig.for_model("mpnet", vocab_size=512, **OTHERS["mpnet"])
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_embedder(tmp_path).backbone.config._attn_implementation == "eager"
    with pytest.raises(InputError, match="cannot be loaded"):
        load_embedder(tmp_path, attention="flash_attention_2")


def test_an_encoder_decoder_without_an_encoder_alone_is_refused(tokenizer, tmp_path: Path) -> None:
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    AutoModel.from_config(AutoConfig.for_model("bart", vocab_size=512, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no encoder-only class for the encoder-decoder bart"):
        load_embedder(tmp_path)


def test_third_party_prompts_become_the_table(copy: Path) -> None:
    (copy / CARD).unlink()
    prompts = {
        "query": "Q: ",
        "passage": "P: ",
        "STS": "S: ",
        "faq": "F: ",
        "news-query": "N: ",
        "news-document": "D: ",
        "nothing": "",
    }
    edit(copy / "config_sentence_transformers.json", prompts=prompts)
    table = spec_of(copy).prompts
    assert (table.prompt("query"), table.prompt("document")) == ("Q: ", "P: ")
    assert {table.prompt(side, task_type="sts") for side in ("query", "document")} == {"S: "}
    assert (table.prompt("query", name="faq"), table.prompt("document", name="faq")) == ("F: ", "")
    assert (table.prompt("query", name="news"), table.prompt("document", name="news")) == ("N: ", "D: ")
    embedder, peer = load_embedder(copy), SentenceTransformer(str(copy), device="cpu")
    np.testing.assert_allclose(
        peer.encode(["почта"], prompt_name="faq"),
        embedder.encode(["почта"], prompt=table.prompt("query", name="faq")),
        atol=1e-5,
    )


def test_a_third_party_default_prompt_precedes_both_sides(copy: Path) -> None:
    (copy / CARD).unlink()
    edit(copy / "config_sentence_transformers.json", prompts={"all": "A: "}, default_prompt_name="all")
    table = spec_of(copy).prompts
    assert (table.prompt("query"), table.prompt("document")) == ("A: ", "A: ")


def test_a_folder_without_its_card_has_the_same_search_prompts(saved: Path, copy: Path) -> None:
    (copy / CARD).unlink()
    ours, theirs = spec_of(saved).prompts, spec_of(copy).prompts
    for side in ("query", "document"):
        assert theirs.prompt(side) == ours.prompt(side)
    assert theirs.prompt("query", name="faq") == ours.prompt("query", name="faq")


def test_third_party_lengths_beyond_the_positions_are_cut(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("bert", max_position_embeddings=64), tmp_path)
    (tmp_path / CARD).unlink()
    edit(tmp_path / "sentence_bert_config.json", max_seq_length=512, document_length=None)
    assert load_embedder(tmp_path).spec.document_length == 64


def test_a_missing_pooler_is_not_random(make_embedder, tmp_path: Path) -> None:
    embedder = make_embedder("bert")
    embedder.backbone.pooler = None
    save_embedder(embedder, tmp_path / "saved")
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_embedder(load_embedder(tmp_path / "saved"), tmp_path / str(seed))
    one, other = ((tmp_path / str(seed) / "model.safetensors").read_bytes() for seed in (1, 2))
    assert one == other

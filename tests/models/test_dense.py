"""Dense modules after the pooling, against sentence-transformers' own; and its similarities."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer
from torch import nn
from transformers import AutoModel, AutoTokenizer

from embedline.compress.layers import without_layers
from embedline.config.model import DynamicNTK, LatentConfig, LoraConfig, ModelConfig
from embedline.errors import InputError
from embedline.evaluation.untrained import untrained_digest, untrained_twin
from embedline.export.onnx import export_onnx
from embedline.export.parity import measure_parity
from embedline.export.quantize import quantize_int8
from embedline.export.runtime import OnnxEmbedder
from embedline.models.card import read_spec
from embedline.models.folder import CARD, load_embedder, save_embedder
from embedline.models.lora import add_lora, merge_lora
from embedline.models.opening import open_base, open_model
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.stated import NOTHING
from embedline.planning.checks.dims import require_dims
from embedline.training.objectives.retromae import RetroMAE

LABSE = [Dense(32, 32, activation_function=nn.Tanh())]
GTR = [Dense(32, 24, bias=False, activation_function=nn.Identity())]
GEMMA = [
    Dense(32, 48, bias=False, activation_function=nn.Identity()),
    Dense(48, 32, bias=False, activation_function=nn.Identity()),
]
RESIDUAL = [Dense(32, 24, activation_function=nn.GELU(), use_residual=True), Dense(24, 24, use_residual=True)]
CHAINS = {"labse": LABSE, "gtr": GTR, "embeddinggemma": GEMMA, "residual": RESIDUAL}


@pytest.fixture(scope="module")
def encoder(make_embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, and nothing of sentence-transformers; tests must not write here."""
    folder, embedder = tmp_path_factory.mktemp("encoder"), make_embedder("bert")
    embedder.backbone.save_pretrained(folder)
    embedder.tokenizer.save_pretrained(folder)
    return folder


def peer_of(
    encoder: Path, *modules: nn.Module, pooling: str = "mean", **settings: Any
) -> SentenceTransformer:
    """A model that the library builds from `modules` after the pooling."""
    chain = [Transformer(str(encoder), max_seq_length=40), Pooling(32, pooling), *modules]
    return SentenceTransformer(modules=chain, device="cpu", **settings)


@pytest.fixture
def gemma(encoder: Path, tmp_path: Path) -> Path:
    peer_of(encoder, *GEMMA, Normalize()).save_pretrained(str(tmp_path / "peer"))
    return tmp_path / "peer"


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_dense_modules_give_the_librarys_vectors_and_are_saved_for_it(
    encoder: Path, texts: list[str], tmp_path: Path, chain: str, pooling: str
) -> None:
    peer = peer_of(encoder, *CHAINS[chain], Normalize(), pooling=pooling)
    peer.save_pretrained(str(tmp_path / "theirs"))
    embedder = load_embedder(tmp_path / "theirs")
    expected = peer.encode(texts)
    assert embedder.width == expected.shape[1] == CHAINS[chain][-1].out_features
    np.testing.assert_allclose(embedder.encode(texts), expected, atol=1e-6)
    save_embedder(embedder, tmp_path / "ours")
    card = json.loads((tmp_path / "ours" / CARD).read_text())
    assert card["width"] == embedder.width
    assert read_spec(tmp_path / "ours") == embedder.spec
    np.testing.assert_array_equal(load_embedder(tmp_path / "ours").encode(texts), embedder.encode(texts))
    again = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-6)
    again.save_pretrained(str(tmp_path / "theirs again"))
    third = load_embedder(tmp_path / "theirs again")
    assert third.spec.dense_layers == embedder.spec.dense_layers
    np.testing.assert_allclose(third.encode(texts), expected, atol=1e-6)


def test_a_layer_norm_follows_the_dense_layers(encoder: Path, texts: list[str], tmp_path: Path) -> None:
    peer = peer_of(encoder, *GTR, LayerNorm(24), Normalize())
    peer.save_pretrained(str(tmp_path / "theirs"))
    embedder = load_embedder(tmp_path / "theirs")
    assert embedder.spec.layer_norm
    np.testing.assert_allclose(embedder.encode(texts), peer.encode(texts), atol=1e-6)
    save_embedder(embedder, tmp_path / "ours")
    again = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(again.encode(texts), peer.encode(texts), atol=1e-5)


@pytest.mark.parametrize("name", ["latent", "dynamic ntk"])
def test_dense_layers_are_a_part_of_our_own_class(
    make_embedder, encoder: Path, texts: list[str], tmp_path: Path, name: str
) -> None:
    """Other poolings and positions are saved with a class of ours, which holds the Dense layers."""
    backbone = make_embedder("nomic_bert" if name == "dynamic ntk" else "bert").backbone
    backbone.save_pretrained(tmp_path / "encoder")
    for file in encoder.glob("*token*"):
        shutil.copy(file, tmp_path / "encoder")
    peer_of(tmp_path / "encoder", *GTR, Normalize()).save_pretrained(str(tmp_path / "theirs"))
    embedder = load_embedder(tmp_path / "theirs")
    if name == "latent":
        latent = LatentConfig(latents=5, heads=4)
        embedder = embedder.with_spec(replace(embedder.spec, pooling="latent", latent=latent))
    else:
        apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=2.0, trained_length=16))
    save_embedder(embedder, tmp_path / "ours")
    expected = embedder.encode(texts)
    np.testing.assert_array_equal(load_embedder(tmp_path / "ours").encode(texts), expected)
    peer = SentenceTransformer(str(tmp_path / "ours"), device="cpu", trust_remote_code=True)
    assert peer.get_embedding_dimension() == 24
    np.testing.assert_allclose(peer.encode(texts), expected, atol=1e-5)
    peer.save_pretrained(str(tmp_path / "resaved"))  # without our card
    np.testing.assert_allclose(load_embedder(tmp_path / "resaved").encode(texts), expected, atol=1e-5)
    model = AutoModel.from_pretrained(tmp_path / "ours", trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ours", trust_remote_code=True)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        vectors = model(batch["input_ids"], batch["attention_mask"], return_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_dense_layers_train_beside_the_backbone_or_its_adapters(
    gemma: Path, tmp_path: Path, lora: bool
) -> None:
    embedder = load_embedder(gemma).train()
    if lora:
        add_lora(embedder.backbone, LoraConfig(rank=2))
    before = {name: weight.detach().clone() for name, weight in embedder.named_parameters()}
    optimizer = torch.optim.SGD([p for p in embedder.parameters() if p.requires_grad], 0.1)
    batch = embedder.pad(embedder.tokenize(["почта", "VPN printer"], max_length=8))
    for _ in range(2):
        optimizer.zero_grad()
        embedder(**batch).square().mean().backward()
        optimizer.step()
    after = dict(embedder.named_parameters())
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {"dense_layers.0.linear.weight", "dense_layers.1.linear.weight"} <= changed
    assert any(name.startswith("backbone.") for name in changed)
    if lora:
        merge_lora(embedder.backbone)
    expected = embedder.encode(["почта"])
    save_embedder(embedder, tmp_path / "ours")
    peer = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(peer.encode(["почта"]), expected, atol=1e-5)


@pytest.mark.parametrize("chain", CHAINS)
def test_dense_layers_are_exported(encoder: Path, texts: list[str], tmp_path: Path, chain: str) -> None:
    peer = peer_of(encoder, *CHAINS[chain], Normalize())
    peer.save_pretrained(str(tmp_path / "theirs"))
    embedder = load_embedder(tmp_path / "theirs", attention="sdpa").eval()
    embedder = embedder.with_spec(replace(embedder.spec, dims=(8,)))
    export_onnx(embedder, tmp_path / "onnx", 18)
    quantize_int8(tmp_path / "onnx")
    parity = measure_parity(embedder, tmp_path / "onnx", texts, min_cosine={"fp32": 0.9999, "int8": 0.9})
    assert parity.passed
    exported = OnnxEmbedder(tmp_path / "onnx")
    assert exported.width == embedder.width
    np.testing.assert_allclose(exported.encode(texts), peer.encode(texts), atol=1e-5)


def test_pruned_twins_and_heads_keep_the_dense_layers(gemma: Path, tmp_path: Path) -> None:
    embedder = load_embedder(gemma)
    spec = replace(embedder.spec, heads=("dense", "lexical", "multi_vector"))
    embedder = embedder.with_spec(spec)
    pruned = without_layers(embedder, [0])
    assert torch.equal(pruned.dense_layers[1].linear.weight, embedder.dense_layers[1].linear.weight)
    encoded = pruned.represent(**pruned.pad(pruned.tokenize(["VPN"], max_length=8)))
    assert (encoded.dense.shape[-1], encoded.tokens.shape[-1]) == (32, 32)  # token vectors before the Dense
    twin = untrained_twin(gemma)
    assert twin.spec.dense_layers == embedder.spec.dense_layers
    assert not torch.equal(twin.dense_layers[0].linear.weight, embedder.dense_layers[0].linear.weight)
    before = untrained_digest(gemma)
    edit(gemma / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    assert untrained_digest(gemma) != before


def test_dims_and_heads_count_from_the_width_they_read(encoder: Path, tmp_path: Path) -> None:
    peer_of(encoder, GEMMA[0], Normalize()).save_pretrained(str(tmp_path / "wide"))
    embedder = load_embedder(tmp_path / "wide")
    assert (embedder.width, embedder.state_width) == (48, 32)
    heads = embedder.with_spec(replace(embedder.spec, heads=("dense", "multi_vector"))).heads
    assert heads["multi_vector"].project.in_features == 32
    retromae = RetroMAE(embedder, length=8)
    ids = torch.tensor([[5, 6, 7, 8]])
    everywhere = torch.ones_like(ids).bool()
    losses = retromae(ids, torch.ones_like(ids), ids.clone().fill_(9), everywhere, everywhere)
    losses.decoder.backward()
    assert embedder.dense_layers[0].linear.weight.grad.abs().sum() > 0


def test_plan_takes_the_width_of_the_dense_layers(encoder: Path, tmp_path: Path) -> None:
    peer_of(encoder, GEMMA[0], Normalize()).save_pretrained(str(tmp_path / "wide"))
    peer_of(encoder, *GTR, Normalize()).save_pretrained(str(tmp_path / "narrow"))
    wide = type("Config", (), {"model": ModelConfig(base="x", dims=[48])})  # type: ignore[call-arg]
    require_dims(wide, tmp_path / "wide")
    narrow = type("Config", (), {"model": ModelConfig(base="x", dims=[28])})  # type: ignore[call-arg]
    with pytest.raises(InputError, match="28 is larger than the base's width 24"):
        require_dims(narrow, tmp_path / "narrow")


def test_preflight_opens_dense_modules_without_their_weights(
    encoder: Path, gemma: Path, tmp_path: Path
) -> None:
    peer_of(encoder, GEMMA[0], Normalize()).save_pretrained(str(tmp_path / "wide"))
    lengths = {"query_length": 8, "document_length": 8}
    open_base(tmp_path / "wide", ModelConfig(base="x", dims=[48], **lengths))  # type: ignore[call-arg]
    with pytest.raises(InputError, match="49 is larger than the model's width 48"):
        open_base(tmp_path / "wide", ModelConfig(base="x", dims=[49], **lengths))  # type: ignore[call-arg]
    damage(gemma, "pickled")
    with pytest.raises(InputError, match="pickled weights are not loaded"):
        open_model(gemma, NOTHING)
    edit(tmp_path / "wide" / "config_sentence_transformers.json", similarity_fn_name="manhattan")
    with pytest.raises(InputError, match="manhattan"):
        open_model(tmp_path / "wide", NOTHING)


def test_another_dense_is_another_index_version(gemma: Path, tmp_path: Path) -> None:
    embedder = load_embedder(gemma)
    versions = []
    for name in ("one", "other"):
        save_embedder(embedder, tmp_path / name)
        versions.append(json.loads((tmp_path / name / CARD).read_text())["index_version"])
        with torch.no_grad():
            embedder.dense_layers[1].linear.weight += 0.1
    assert versions[0] != versions[1]


def damage(folder: Path, what: str) -> None:
    dense = folder / "2_Dense"
    match what:
        case "unknown activation":
            edit(dense / "config.json", activation_function="os.system")
        case "another class of torch":
            edit(dense / "config.json", activation_function="torch.nn.modules.linear.Bilinear")
        case "on tokens":
            edit(dense / "config.json", module_input_name="token_embeddings")
        case "other widths":
            edit(dense / "config.json", in_features=16)
        case "pickled":
            (dense / "model.safetensors").rename(dense / "pytorch_model.bin")
        case "other shape":
            edit(dense / "config.json", bias=True)
        case "cut":
            (dense / "model.safetensors").write_bytes((dense / "model.safetensors").read_bytes()[:-9])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unknown activation", "'os.system'"),
        ("another class of torch", "Bilinear"),
        ("on tokens", "reads token_embeddings"),
        ("other widths", "takes vectors of 16 values, and the module before it gives 32"),
        ("pickled", "pickled weights are not loaded"),
        ("other shape", "cannot be loaded"),
        ("cut", "cannot be loaded"),
    ],
)
def test_a_dense_that_cannot_be_loaded_is_named(gemma: Path, what: str, message: str) -> None:
    damage(gemma, what)
    with pytest.raises(InputError, match=message) as error:
        load_embedder(gemma)
    assert "2_Dense" in str(error.value)


@pytest.mark.parametrize("name", ["dot", "euclidean", "manhattan"])
def test_another_similarity_than_cosine_is_refused(encoder: Path, tmp_path: Path, name: str) -> None:
    peer_of(encoder, similarity_fn_name=name).save_pretrained(str(tmp_path / "theirs"))
    with pytest.raises(InputError, match=f"compares vectors by {name} at their own length") as error:
        load_embedder(tmp_path / "theirs")
    assert "similarity_fn_name" in str(error.value)


@pytest.mark.parametrize("name", ["dot", "euclidean"])
def test_a_similarity_of_unit_vectors_that_ranks_as_the_cosine_is_loaded(
    encoder: Path, texts: list[str], tmp_path: Path, name: str
) -> None:
    peer = peer_of(encoder, Normalize(), similarity_fn_name=name)
    peer.save_pretrained(str(tmp_path / "theirs"))
    vectors = load_embedder(tmp_path / "theirs").encode(texts)
    theirs = peer.similarity(peer.encode(texts[:1]), peer.encode(texts[1:])).argsort()
    np.testing.assert_array_equal((vectors[:1] @ vectors[1:].T).argsort(), theirs)


def test_manhattan_is_refused_of_unit_vectors_too(encoder: Path, tmp_path: Path) -> None:
    peer_of(encoder, Normalize(), similarity_fn_name="manhattan").save_pretrained(str(tmp_path / "theirs"))
    with pytest.raises(InputError, match="compares vectors by manhattan, and"):
        load_embedder(tmp_path / "theirs")


def test_vectors_without_a_normalize_module_are_scaled_with_a_line(
    encoder: Path, texts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peer = peer_of(encoder, *LABSE)
    peer.save_pretrained(str(tmp_path / "theirs"))
    with caplog.at_level(logging.INFO):
        vectors = load_embedder(tmp_path / "theirs").encode(texts)
    assert "has no Normalize module" in caplog.text
    np.testing.assert_allclose(vectors, peer.encode(texts, normalize_embeddings=True), atol=1e-6)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([Dropout(0.1), Normalize()], "does not have: Dropout"),
        ([Normalize(), *LABSE], "in the order Transformer, Pooling, Normalize, Dense"),
        (
            [LayerNorm(32), *LABSE, Normalize()],
            "in the order Transformer, Pooling, LayerNorm, Dense, Normalize",
        ),
    ],
)
def test_a_module_or_an_order_that_would_be_read_over_is_refused(
    encoder: Path, tmp_path: Path, modules: list[nn.Module], message: str
) -> None:
    peer_of(encoder, *modules).save_pretrained(str(tmp_path / "theirs"))
    with pytest.raises(InputError, match=message):
        load_embedder(tmp_path / "theirs")


def test_a_module_of_another_package_is_named_in_full(gemma: Path) -> None:
    modules = json.loads((gemma / "modules.json").read_text())
    modules[2]["type"] = "pylate.models.Dense.Dense"
    (gemma / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"does not have: pylate\.models\.Dense\.Dense"):
        load_embedder(gemma)

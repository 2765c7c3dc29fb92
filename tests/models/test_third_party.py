"""Folders that sentence-transformers wrote: a model trained further with it, or made with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from embedline.config.model import DynamicNTK, LatentConfig
from embedline.errors import InputError
from embedline.models.folder import CARD, load_embedder, save_embedder
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.third_party import read_prompts

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mean": ("bert", "mean", {}),
    "mean, layer norm": ("modernbert", "mean", {"layer_norm": True}),
    "last of a decoder": ("llama", "last", {}),
    "latent": ("modernbert", "latent", {"latent": LatentConfig(latents=5, heads=4), "layer_norm": True}),
    "mcls": ("xlm-roberta", "mcls", {"mcls_every": 8}),
    "dynamic ntk": ("nomic_bert", "cls", {}),
}


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_resaved_by_sentence_transformers_is_the_same(
    make_embedder, texts: list[str], tmp_path: Path, name: str
) -> None:
    """It does not save our card: lengths, pooling, layer norm and prompts are read from its files."""
    architecture, pooling, more = MODELS[name]
    embedder = make_embedder(architecture, "mean" if pooling in ("latent", "mcls") else pooling)
    embedder = embedder.with_spec(replace(embedder.spec, pooling=pooling, **more)).eval()
    if name == "dynamic ntk":
        apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=2.0, trained_length=16))
    save_embedder(embedder, tmp_path / "ours")
    peer = SentenceTransformer(str(tmp_path / "ours"), device="cpu", trust_remote_code=True)
    with torch.no_grad():  # as after a training
        for parameter in peer[0].parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    peer.save_pretrained(str(tmp_path / "theirs"))
    assert not (tmp_path / "theirs" / CARD).exists()
    again = load_embedder(tmp_path / "theirs")
    for part in ("pooling", "layer_norm", "query_length", "document_length"):
        assert getattr(again.spec, part) == getattr(embedder.spec, part), part
    for side, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        np.testing.assert_allclose(again.encode_side(texts, side), encode(texts), atol=1e-5)
    save_embedder(again, tmp_path / "ours again")
    third = SentenceTransformer(str(tmp_path / "ours again"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(third.encode_query(texts), peer.encode_query(texts), atol=1e-5)


def test_a_length_that_only_the_tokenizer_has_is_used(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder("bert"), tmp_path)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    peer[0].query_length = peer[0].document_length = None
    peer.max_seq_length = 24
    peer.save_pretrained(str(tmp_path / "theirs"))
    assert "max_seq_length" not in json.loads((tmp_path / "theirs" / "sentence_bert_config.json").read_text())
    spec = load_embedder(tmp_path / "theirs").spec
    assert (spec.query_length, spec.document_length) == (24, 24)
    edit(tmp_path / "theirs" / "tokenizer_config.json", model_max_length=10**30)  # it has no bound
    assert load_embedder(tmp_path / "theirs").spec.document_length == 512  # the model's positions


def test_a_layer_norm_with_weights_is_refused(make_embedder, tmp_path: Path) -> None:
    embedder = make_embedder()
    save_embedder(embedder.with_spec(replace(embedder.spec, layer_norm=True)), tmp_path)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    with torch.no_grad():
        peer[2].norm.bias += 0.1
    peer.save_pretrained(str(tmp_path / "theirs"))
    with pytest.raises(InputError, match="its layer norm has weights"):
        load_embedder(tmp_path / "theirs")


def test_case_is_folded_where_the_folder_does_so(make_embedder, tmp_path: Path) -> None:
    save_embedder(make_embedder(), tmp_path)
    (tmp_path / CARD).unlink()
    edit(tmp_path / "tokenizer.json", normalizer=None)  # by itself it keeps case
    edit(tmp_path / "sentence_bert_config.json", do_lower_case=True)
    texts = ["The Printer", "VPN"]
    again, peer = load_embedder(tmp_path), SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(again.encode(texts), peer.encode(texts), atol=1e-5)
    np.testing.assert_array_equal(again.encode(["the printer", "vpn"]), again.encode(texts))


@pytest.mark.parametrize("pooling", ["mean", "latent"])
def test_the_code_in_a_folders_readme_runs_and_gives_its_vectors(
    make_embedder, tmp_path: Path, pooling: str
) -> None:
    embedder = make_embedder()
    embedder = embedder.with_spec(
        replace(embedder.spec, pooling=pooling, latent=LatentConfig(latents=5, heads=4))
    )
    save_embedder(embedder, tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8").replace("path/to/this/folder", str(tmp_path))
    blocks = [block.partition("```")[0] for block in card.split("```python\n")[1:]]
    namespace: dict[str, Any] = {}
    for block in blocks:
        if "import" in block:  # the other blocks name a model of the reader
            exec(block, namespace)
    assert ("vectors" in namespace) == (pooling == "latent")
    np.testing.assert_allclose(namespace["documents"], embedder.encode_side(["..."], "document"), atol=1e-5)
    if pooling == "latent":
        np.testing.assert_allclose(namespace["vectors"].detach(), embedder.encode(["..."]), atol=1e-5)


@pytest.mark.parametrize("pooling", ["latent", "mcls"])
def test_our_class_supports_gradient_checkpointing(
    make_embedder, texts: list[str], tmp_path: Path, pooling: str
) -> None:
    embedder = make_embedder()
    latent = LatentConfig(latents=5, heads=4)
    save_embedder(
        embedder.with_spec(replace(embedder.spec, pooling=pooling, latent=latent, mcls_every=8)), tmp_path
    )
    model = AutoModel.from_pretrained(tmp_path, trust_remote_code=True).train()
    batch = embedder.pad(embedder.tokenize(texts, max_length=40))
    gradients = []
    for kept in (True, False):
        if not kept:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch, return_embeddings=True).square().mul(torch.arange(32)).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert any(
        module.gradient_checkpointing
        for module in model.modules()
        if hasattr(module, "gradient_checkpointing")
    )
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-5)


def test_an_empty_prompt_keeps_the_default_one_away(tmp_path: Path) -> None:
    """As `encode_query` of sentence-transformers: an empty prompt prevents the fallback to the default."""
    saved: dict[str, Any] = {"prompts": {"query": "", "all": "A: "}, "default_prompt_name": "all"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(saved))
    prompts = read_prompts(tmp_path)
    assert (prompts.prompt("query"), prompts.prompt("document")) == ("", "A: ")

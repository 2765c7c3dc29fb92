"""Converted folders give Embedline's scores in FlagEmbedding and sentence-transformers, by their README."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedline.config.model import DynamicNTK, LatentConfig, Prompt
from embedline.errors import InputError
from embedline.export.convert import convert
from embedline.models.bidirectional import make_bidirectional
from embedline.models.clients import Client
from embedline.models.embedder import DenseSpec, Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.head_scores import lexical_scores, multi_vector_scores
from embedline.models.prompts import PromptTable
from embedline.models.rope import apply_dynamic_ntk

QUERIES = ["Как настроить почту на телефоне?", "printer printer", "", "VPN и почта " * 9]
DOCUMENTS = [
    "Откройте настройки, выберите учётные записи и добавьте адрес почты. " * 5,
    "The printer does not answer.",
    "VPN",
    "",
    "Ёлка, ёж и 12345 №7!",
]
SPEC = EmbedderSpec(
    heads=("dense", "lexical", "multi_vector"),
    latent=LatentConfig(latents=6, heads=4),
    mcls_every=8,
    multi_vector_width=24,
    query_length=16,
    document_length=40,
    prompts=PromptTable({"default": Prompt(query="query: ", document='Passage "1":\n')}),
)
FLAG = ["xlm-roberta cls", "bert mean", "modernbert mean", "qwen3 last"]
OTHERS = ["xlm-roberta cls", "bert mean", "modernbert latent", "modernbert mcls", "nomic_bert+ntk mean"]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep the code that folders bring in a cache of this test's own."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
            del sys.modules[name]

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    forget()
    yield
    forget()


@pytest.fixture
def make(make_embedder):
    """Make a model with heads whose weights show every difference."""

    def made(kind: str, **changes: object) -> Embedder:
        architecture, pooling = kind.split()
        architecture, _, stretched = architecture.partition("+")
        sizes = {"num_key_value_heads": 1, "head_dim": 16} if architecture == "qwen3" else {}
        spec = replace(SPEC, pooling=pooling, **changes)
        embedder: Embedder = make_embedder(architecture, spec=spec, initializer_range=0.3, **sizes)
        if architecture == "qwen3":
            make_bidirectional(embedder.backbone)
        if stretched:  # a folder with a model class of its own
            apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=2.0, trained_length=16))
        torch.manual_seed(5)
        for head in embedder.heads.values():
            for weight in head.parameters():
                torch.nn.init.normal_(weight)
        if "lexical" in embedder.heads:
            torch.nn.init.constant_(embedder.heads["lexical"].weigh.bias, 2.0)  # some weights are 0, not all
        return embedder

    return made


def scores(embedder: Embedder) -> dict[str, np.ndarray]:
    """Return Embedline's score of each query and document, by each head, with prompts and lengths."""
    sides = []
    for side, texts, length in (("query", QUERIES, 16), ("document", DOCUMENTS, 40)):
        prompt = embedder.spec.prompts.prompt(side)
        batch = embedder.pad(embedder.tokenize(texts, prompt=prompt, max_length=length))
        with torch.no_grad():
            sides.append((batch["input_ids"], embedder.represent(**batch)))
    (q_ids, q), (d_ids, d) = sides
    normalize = torch.nn.functional.normalize
    found = {"dense": normalize(q.dense, dim=-1) @ normalize(d.dense, dim=-1).T}
    if q.lexical is not None:
        found["lexical"] = lexical_scores(q_ids, q.lexical, d_ids, d.lexical)
    if q.tokens is not None:
        found["multi_vector"] = multi_vector_scores(q.tokens, d.tokens)
    return {head: table.numpy() for head, table in found.items()}


def run_readme(folder: Path) -> dict[str, Any]:
    """Run the Python code of a folder's README on the texts; return its variables."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    code = code.replace("path/to/this/folder", str(folder))
    before, between, after = code.split('["..."]')
    code = f"{before}{QUERIES}{between}{DOCUMENTS}{after}"
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


@pytest.mark.parametrize("kind", FLAG)
def test_bgem3flagmodel_gives_our_scores(make, tmp_path: Path, kind: str) -> None:
    embedder = make(kind)
    convert(embedder, Client.flagembedding, tmp_path / "flag", lineage=[{"step": "mine"}])
    found, ours = run_readme(tmp_path / "flag"), scores(embedder)
    assert (ours["lexical"] > 0).any()
    for head in ("dense", "lexical", "multi_vector"):
        np.testing.assert_allclose(found[head], ours[head], atol=1e-4, err_msg=head)
    model, prompts = found["model"], embedder.spec.prompts
    pair = (prompts.prompt("query") + QUERIES[1], prompts.prompt("document") + DOCUMENTS[1])
    pairwise = model.compute_score([pair])
    for theirs, head in {"dense": "dense", "sparse": "lexical", "colbert": "multi_vector"}.items():
        assert pairwise[theirs][0] == pytest.approx(ours[head][1, 1], rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("kind", OTHERS)
def test_sparse_encoder_gives_our_scores(make, trusted, tmp_path: Path, kind: str) -> None:
    embedder = make(kind, heads=("dense", "lexical"))
    convert(embedder, Client.sparse_encoder, tmp_path / "sparse")
    found = run_readme(tmp_path / "sparse")
    np.testing.assert_allclose(found["scores"].numpy(), scores(embedder)["lexical"], atol=1e-4)
    terms = dict(found["terms"][2])
    assert terms
    assert not set(terms) & set(embedder.tokenizer.all_special_tokens)
    assert not list((tmp_path / "sparse").rglob("*.pt"))


@pytest.mark.parametrize("kind", [*OTHERS, "qwen3 last"])
def test_multi_vector_encoder_gives_our_scores(make, trusted, tmp_path: Path, kind: str) -> None:
    embedder = make(kind, heads=("dense", "multi_vector"))
    convert(embedder, Client.multi_vector_encoder, tmp_path / "late")
    found = run_readme(tmp_path / "late")
    np.testing.assert_allclose(found["scores"].numpy(), scores(embedder)["multi_vector"], atol=1e-4)
    assert found["queries"][0].shape[1] == 24
    assert not list((tmp_path / "late").rglob("*.pt"))


def test_files_for_flagembedding_are_tensors_beside_our_own_folder(make, tmp_path: Path) -> None:
    embedder = make("bert mean")
    convert(embedder, Client.flagembedding, tmp_path / "flag", lineage=[{"step": "mine"}])
    for file, shape in {"sparse_linear.pt": (1, 32), "colbert_linear.pt": (24, 32)}.items():
        state = torch.load(tmp_path / "flag" / file, weights_only=True)
        assert (state["weight"].shape, state["bias"].shape) == (shape, shape[:1])
        assert {value.dtype for value in state.values()} == {torch.float32}
    again = load_embedder(tmp_path / "flag").eval()
    assert again.spec == embedder.spec
    for head, table in scores(embedder).items():
        np.testing.assert_array_equal(scores(again)[head], table)
    assert json.loads((tmp_path / "flag" / "embedline.json").read_text())["lineage"] == [{"step": "mine"}]
    assert embedder.tokenizer.eos_token is None, "the model's own tokenizer stays"


@pytest.mark.parametrize("head", ["lexical", "multi_vector"])
def test_a_missing_head_scores_zero_in_flagembedding(make, tmp_path: Path, head: str) -> None:
    embedder = make("bert cls", heads=("dense", head))
    convert(embedder, Client.flagembedding, tmp_path / "flag")
    found, ours = run_readme(tmp_path / "flag"), scores(embedder)
    np.testing.assert_allclose(found[head], ours[head], atol=1e-4)
    everything = {"return_dense": True, "return_sparse": True, "return_colbert_vecs": True}
    all_heads = found["model"].encode_corpus(DOCUMENTS, **everything)
    if head == "lexical":
        assert not any(vectors.any() for vectors in all_heads["colbert_vecs"])
    else:
        assert not any(all_heads["lexical_weights"])


@pytest.mark.parametrize(
    ("changes", "client", "reason"),
    [
        ({"pooling": "mcls"}, Client.flagembedding, "the pooling mcls"),
        ({"pooling": "latent"}, Client.flagembedding, "the pooling latent"),
        ({"architecture": "nomic_bert+ntk"}, Client.flagembedding, "dynamic NTK"),
        ({"layer_norm": True}, Client.flagembedding, "a layer norm on the vector"),
        ({"heads": ("dense",)}, Client.flagembedding, "no lexical or multi-vector head"),
        ({"heads": ("dense", "multi_vector")}, Client.sparse_encoder, "no lexical head"),
        ({"heads": ("dense", "lexical")}, Client.multi_vector_encoder, "no multi-vector head"),
    ],
)
def test_what_a_client_cannot_represent_is_refused(
    make, tmp_path: Path, changes: dict[str, object], client: Client, reason: str
) -> None:
    rest = {"architecture": "modernbert", "pooling": "mean"} | changes
    embedder = make(f"{rest.pop('architecture')} {rest.pop('pooling')}", **rest)
    with pytest.raises(InputError, match=reason):
        convert(embedder, client, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dense_layers_are_refused_for_flagembedding(make, tmp_path: Path) -> None:
    embedder = make("bert mean")
    layer = DenseSpec(32, 8, True, "torch.nn.modules.activation.Tanh")
    embedder = embedder.with_spec(replace(embedder.spec, dense_layers=(layer,)))
    with pytest.raises(InputError, match="Dense layers"):
        convert(embedder, Client.flagembedding, tmp_path / "out")


def test_a_folder_with_files_is_not_overwritten(make, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(make("bert mean"), Client.sparse_encoder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("pooling", ["mean", "mcls"])
def test_the_plain_folder_names_the_loaders_that_must_not_be_used(make, tmp_path: Path, pooling: str) -> None:
    save_embedder(make(f"modernbert {pooling}"), tmp_path / "plain")
    readme = (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    assert "`BGEM3FlagModel` finds no `.pt` files here" in readme
    offered = re.findall(r"embedline convert path/to/this/folder OUT --to (\S+)", readme)
    assert offered == [client for client in Client if pooling == "mean" or client != Client.flagembedding]
    assert not list((tmp_path / "plain").rglob("*.pt"))


def test_the_plain_folder_of_a_dense_model_offers_no_conversion(make, tmp_path: Path) -> None:
    save_embedder(make("bert mean", heads=("dense",)), tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "BGEM3FlagModel" in readme
    assert "embedline convert" not in readme

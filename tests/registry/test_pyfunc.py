"""MLflow's pyfunc gives Embedline's scores by every head, in Python and over HTTP."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from embedline.config.model import LatentConfig, Prompt
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.head_vectors import HeadVectors, encode_heads
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.registry.registered_form import registered_form
from embedline.vectors.unit import unit

TEXTS = [
    "Как настроить почту?",
    "",
    "The printer does not answer. " * 9,
    "VPN VPN",
    "ёлка",
    *["printer"] * 40,
]
HEADS = ["dense", "lexical", "multi_vector"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SPEC = EmbedderSpec(
    latent=LatentConfig(latents=6, heads=4),
    heads=tuple(HEADS),
    multi_vector_width=24,
    query_length=12,
    document_length=40,
    prompts=PromptTable({"default": Prompt(query="query: ", document="text: "), "faq": Prompt(query="Q ")}),
)


@pytest.fixture(scope="module", params=["bert mean", "modernbert latent"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    """A model and its registered form."""
    architecture, pooling = request.param.split()
    root = tmp_path_factory.mktemp("served")
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    backbone = new_backbone(architecture, {**SIZES, "initializer_range": 0.3}, tokenizer, 1)
    save_embedder(Embedder(backbone, tokenizer, replace(SPEC, pooling=pooling)), root / "model")
    with registered_form(root / "model", None, root) as folder:
        shutil.copytree(folder, root / "kept")
    return load_embedder(root / "model").eval(), root / "kept"


def ours(embedder: Embedder, side: str) -> HeadVectors:
    length = 12 if side == "query" else 40
    return encode_heads(embedder, TEXTS, prompt=embedder.spec.prompts.prompt(side), max_length=length)


def require_same(rows: list[dict[str, Any]], vectors: HeadVectors) -> None:
    assert vectors.lexical is not None
    assert vectors.tokens is not None
    assert any(vectors.lexical)
    for row, dense, terms, tokens in zip(rows, *vectors, strict=True):
        np.testing.assert_allclose(row["dense"], dense, atol=1e-5)
        assert {int(term): weight for term, weight in row["lexical"].items()} == pytest.approx(
            terms, abs=1e-5
        )
        np.testing.assert_allclose(row["multi_vector"], tokens, atol=1e-5)


@pytest.mark.parametrize("side", ["query", "document"])
def test_pyfunc_gives_every_head_as_embedline_does(served: tuple[Embedder, Path], side: str) -> None:
    embedder, folder = served
    model = mlflow.pyfunc.load_model(str(folder))
    rows = model.predict(TEXTS, params={"heads": HEADS, "side": side})
    require_same(rows, ours(embedder, side))
    require_same(json.loads(json.dumps(rows)), ours(embedder, side))
    dense = model.predict(TEXTS, params={"side": side, "truncate_dim": 8})
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, unit(ours(embedder, side).dense, 8), atol=1e-5)
    lexical = model.predict(TEXTS[:1], params={"heads": ["lexical"], "side": side})
    assert [list(row) for row in lexical] == [["lexical"]]


def test_pyfunc_takes_a_named_prompt_and_refuses_what_the_model_lacks(served: tuple[Embedder, Path]) -> None:
    embedder, folder = served
    model = mlflow.pyfunc.load_model(str(folder))
    named = model.predict(TEXTS, params={"side": "query", "prompt_name": "faq"})
    np.testing.assert_allclose(named, embedder.encode(TEXTS, prompt="Q ", max_length=12), atol=1e-5)
    for params, message in (
        ({"heads": ["dense", "sparse"]}, "not a list of the model's heads"),
        ({"side": "passage"}, "'passage' is not one of"),
        ({"prompt_name": "sql"}, "'sql' is not one of"),
        ({"truncate_dim": 33}, "between 1 and the model's width 32"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(TEXTS, params=params)


def test_the_scoring_server_answers_with_every_head(served: tuple[Embedder, Path]) -> None:
    embedder, folder = served
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(folder))))
    params = {"heads": HEADS, "side": "query"}
    for payload in (
        {"inputs": TEXTS},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
        {"dataframe_records": [{"text": text} for text in TEXTS]},
    ):
        answer = client.post("/invocations", json={**payload, "params": params})
        assert answer.status_code == 200, answer.text
        require_same(answer.json()["predictions"], ours(embedder, "query"))
    plain = client.post("/invocations", json={"inputs": TEXTS[:1]}).json()["predictions"]
    np.testing.assert_allclose(plain, embedder.encode(TEXTS[:1], max_length=40), atol=1e-5)
    assert client.post("/invocations", json={"inputs": TEXTS, "params": {"heads": ["x"]}}).status_code == 400


def test_the_loader_in_the_folder_imports_no_embedline(served: tuple[Embedder, Path]) -> None:
    _, folder = served
    (package,) = (folder / "code").glob("embedline_pyfunc_*")
    imported = set()
    for file in package.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    third_party = imported - set(sys.stdlib_module_names)
    assert third_party == {"numpy", "safetensors", "sentence_transformers", "torch"}

"""A saved folder gives the same vectors through Embedline, AutoModel, SentenceTransformer and LangChain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from embedline.config.model import DynamicNTK, LatentConfig, Prompt
from embedline.models.bidirectional import is_bidirectional, make_bidirectional
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder
from embedline.models.prompts import PromptTable
from embedline.models.rope import apply_dynamic_ntk
from embedline.models.rotary import has_dynamic_ntk

PROMPT = "Instruct: Дан вопрос, найдите ответ\nQuery: "
DOCUMENTS = [
    "Откройте настройки, выберите учётные записи и добавьте адрес почты. " * 3,
    "The printer does not answer.",
    "VPN",
    "Сбросьте пароль в личном кабинете, затем войдите заново.",
]
QUERIES = ["Как настроить почту?", "printer", "пароль"]
LENGTH = 40
MODELS = {
    "modernbert": ["mean", "cls", "last", "latent", "mcls"],
    "bert": ["mean", "cls", "last", "latent", "mcls"],
    "nomic_bert": ["mean", "latent", "mcls"],
    "nomic_bert+ntk": ["mean", "mcls"],
    "modernbert+ntk": ["latent"],
    "xlm-roberta": ["cls", "mcls"],
    "llama": ["last", "latent"],
    "qwen2": ["mean"],
    "qwen3": ["last"],
    "mistral": ["latent"],
    "gemma3_text": ["mean", "latent"],
}
NAMES = [f"{architecture}-{pooling}" for architecture, poolings in MODELS.items() for pooling in poolings]
THROUGH_LANGCHAIN = [name for name in NAMES if name.startswith(("modernbert", "llama"))]
DECODERS = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")


def qwen_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """Return the same vocabulary in the class that AutoTokenizer always uses for qwen2."""
    tokenizer.save_pretrained(folder)
    AutoConfig.for_model("qwen2").save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def models(make_embedder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Embedder, Path]]:
    """Save every model with all heads; given.npz in its folder holds the other loaders' vectors."""
    root = tmp_path_factory.mktemp("folders")
    made: dict[str, tuple[Embedder, Path]] = {}
    for name in NAMES:
        kind, _, pooling = name.rpartition("-")
        architecture, _, stretched = kind.partition("+")
        spec = EmbedderSpec(
            pooling,
            latent=LatentConfig(latents=6, heads=4),
            mcls_every=8,
            heads=("dense", "lexical", "multi_vector"),
            multi_vector_width=16,
            query_length=LENGTH,
            document_length=LENGTH,
            prompts=PromptTable({"default": Prompt(query=PROMPT)}),
        )
        sizes = {"num_key_value_heads": 1, "head_dim": 16} if architecture in DECODERS else {}
        sizes = {"num_key_value_heads": 1, "vocab_size": 448} if architecture == "qwen2" else sizes
        embedder = make_embedder(architecture, spec=spec, **sizes)
        if architecture == "qwen2":
            tokenizer = qwen_tokenizer(embedder.tokenizer, root / "tokenizer")
            embedder = Embedder(embedder.backbone, tokenizer, spec)
        if architecture in DECODERS:
            make_bidirectional(embedder.backbone)
        if stretched:  # some texts are longer than the trained length, others are not, in one batch
            apply_dynamic_ntk(embedder.backbone, DynamicNTK(factor=2.0, trained_length=16))
        save_embedder(embedder, root / name)
        made[name] = embedder, root / name
    job: dict[str, Any] = {"folders": [str(root / name) for name in made], "length": LENGTH}
    job["langchain"] = [str(root / name) for name in THROUGH_LANGCHAIN]
    job |= {"documents": DOCUMENTS, "queries": QUERIES, "prompt": PROMPT}
    (root / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("other_loaders.py")
    environment = {**os.environ, "HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, str(script), str(root / "job.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return made


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, models) -> tuple[Embedder, Path]:
    return models[request.param]


def test_embedline_loads_what_it_saved(model: tuple[Embedder, Path]) -> None:
    embedder, folder = model
    again = load_embedder(folder).eval()
    assert again.spec == embedder.spec
    batch = embedder.pad(embedder.tokenize(DOCUMENTS, max_length=LENGTH))
    with torch.no_grad():
        for one, other in zip(embedder.represent(**batch), again.represent(**batch), strict=True):
            assert torch.equal(one, other)
    one_by_one = np.concatenate([again.encode([text]) for text in DOCUMENTS])
    np.testing.assert_allclose(one_by_one, embedder.encode(DOCUMENTS), atol=1e-5)


def test_automodel_gives_the_same_states_bit_for_bit(model: tuple[Embedder, Path]) -> None:
    embedder, folder = model
    given = np.load(folder / "given.npz")
    batch = embedder.pad(embedder.tokenize(DOCUMENTS, max_length=LENGTH))
    np.testing.assert_array_equal(given["auto ids"], batch["input_ids"].numpy())
    assert str(given["auto kernel"]) == "sdpa"
    with torch.no_grad():
        states, pooled = embedder.states(**batch)
    np.testing.assert_array_equal(given["auto states"], states.numpy())
    if "auto vectors" in given:  # the folder carries a class of its own
        vectors = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        np.testing.assert_array_equal(given["auto vectors"], vectors)
        np.testing.assert_array_equal(given["auto return_embeddings"], vectors)


def test_own_code_is_saved_only_where_transformers_has_none(model: tuple[Embedder, Path]) -> None:
    embedder, folder = model
    own = embedder.spec.pooling in ("latent", "mcls") or has_dynamic_ntk(embedder.backbone.config)
    assert sorted(file.name for file in folder.glob("*.py")) == (
        ["modeling_embedline.py", "pooling.py", "rotary.py"] if own else []
    )
    assert ("auto vectors" in np.load(folder / "given.npz")) == own


def test_other_loaders_are_bidirectional_too(model: tuple[Embedder, Path]) -> None:
    embedder, folder = model
    assert is_bidirectional(embedder.backbone)
    assert np.load(folder / "given.npz")["auto looks ahead"]


def test_sentence_transformers_gives_the_same_vectors(model: tuple[Embedder, Path]) -> None:
    embedder, folder = model
    given = np.load(folder / "given.npz")
    documents, queries = embedder.encode(DOCUMENTS), embedder.encode(QUERIES, prompt=PROMPT)
    np.testing.assert_array_equal(given["st documents"], documents)  # the same batch, bit for bit
    for how in ("st queries", "st prompt_name", "st encode_query"):
        np.testing.assert_array_equal(given[how], queries)
    np.testing.assert_allclose(given["st similarity"], queries @ documents.T, atol=1e-5)
    short = documents[:, :8] / np.linalg.norm(documents[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(given["st truncated"], short, atol=1e-5)
    assert given["st width"] == embedder.width


@pytest.mark.parametrize("name", THROUGH_LANGCHAIN)
def test_langchain_gives_the_same_vectors(models, name: str) -> None:
    embedder, folder = models[name]
    given = np.load(folder / "given.npz")
    np.testing.assert_array_equal(given["langchain documents"], embedder.encode(DOCUMENTS))
    one_by_one = np.concatenate([embedder.encode([text], prompt=PROMPT) for text in QUERIES])
    together = embedder.encode(QUERIES, prompt=PROMPT)
    for how in ("langchain queries", "langchain prompt_name"):
        np.testing.assert_array_equal(given[how], one_by_one)
        np.testing.assert_allclose(given[how], together, atol=1e-5)

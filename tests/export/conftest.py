from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from embedline.config.model import HybridWeights, LatentConfig, Prompt
from embedline.export.onnx import export_onnx
from embedline.export.quantize import quantize_int8
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXTS = [
    "Как настроить почту?",
    "The printer does not answer.",
    "Принтер не отвечает после обновления драйвера, хотя сеть работает и пробная страница печатается.",
    "VPN",
    "",
    "Ёлка, ёж и 12345 №7!",
    "password reset " * 40,
    "Сбросьте пароль в личном кабинете.",
]
MakeEmbedder = Callable[..., Embedder]


@pytest.fixture(scope="session")
def make_embedder() -> MakeEmbedder:
    tokenizer = train_tokenizer(TEXTS, 512)

    def make(architecture: str = "modernbert", pooling: str = "mean", **settings: object) -> Embedder:
        prompts = PromptTable({"default": Prompt(query="search_query: ", document="")})
        spec = EmbedderSpec(pooling, query_length=16, document_length=48, dims=(32,), prompts=prompts)
        return Embedder(
            new_backbone(architecture, {**SIZES, **settings}, tokenizer, 1), tokenizer, spec
        ).eval()

    return make


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def embedder(make_embedder: MakeEmbedder) -> Embedder:
    return make_embedder()


@pytest.fixture(scope="session")
def exported(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ModernBERT as fp32 and int8; tests must not write here."""
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(embedder, folder, 18, index_version="abc")
    quantize_int8(folder)
    return folder


@pytest.fixture(scope="session")
def make_heads(make_embedder: MakeEmbedder) -> MakeEmbedder:
    """Make an embedder with the given heads, pooling and latents; large weights show every difference."""

    def make(
        architecture: str = "modernbert",
        pooling: str = "mean",
        heads: tuple[str, ...] = ("dense", "lexical", "multi_vector"),
        **settings: object,
    ) -> Embedder:
        plain = make_embedder(architecture, **settings)
        spec = replace(
            plain.spec,
            pooling=pooling,
            latent=LatentConfig(latents=8, heads=4),
            mcls_every=8,
            heads=heads,
            multi_vector_width=24,
            hybrid=HybridWeights(lexical=0.25),
        )
        model = plain.with_spec(spec).eval()
        if "lexical" in heads:  # a new head weighs all terms alike
            width, random = model.state_width, torch.Generator().manual_seed(1)
            torch.nn.init.normal_(
                model.heads["lexical"].weigh.weight, std=0.03 / width**0.5, generator=random
            )
        return model

    return make


@pytest.fixture(scope="session")
def with_heads(make_heads: MakeEmbedder) -> Embedder:
    return make_heads(num_hidden_layers=1)


@pytest.fixture(scope="session")
def exported_heads(with_heads: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ModernBERT with all heads, as fp32 and int8; tests must not write here."""
    folder = tmp_path_factory.mktemp("heads")
    export_onnx(with_heads, folder, 18)
    quantize_int8(folder)
    return folder

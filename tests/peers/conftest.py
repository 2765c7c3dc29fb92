"""Tiny random models for tests against other libraries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = [
    "Как настроить почту на телефоне?",
    "Откройте настройки, выберите учётные записи и добавьте адрес.",
    "The printer does not answer.",
    "Reinstall the driver and restart the spooler service, then print a test page.",
    "VPN",
    "Сбросьте пароль в личном кабинете, затем войдите заново.",
    "Где взять отпускной лист?",
    "Ask the personnel department.",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 384)


@pytest.fixture(scope="session")
def make_embedder(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Embedder]:
    """An Embedder with random weights, the same for the same arguments."""

    def make(
        architecture: str = "modernbert", *, spec: EmbedderSpec | None = None, **settings: object
    ) -> Embedder:
        backbone = new_backbone(architecture, {**SIZES, **settings}, tokenizer, 1)
        return Embedder(backbone, tokenizer, spec or EmbedderSpec(query_length=24, document_length=24)).eval()

    return make


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.tokenizer import train_tokenizer

WORDS = [
    "почта",
    "пароль",
    "принтер",
    "сервер",
    "сеть",
    "экран",
    "ключ",
    "файл",
    "доступ",
    "ошибка",
    "вход",
    "диск",
    "канал",
    "отчёт",
    "mail",
    "password",
    "printer",
    "server",
    "network",
    "screen",
    "key",
    "file",
    "access",
    "error",
    "login",
    "disk",
    "channel",
    "report",
]
MakeEmbedder = Callable[..., Embedder]


@pytest.fixture(scope="session")
def make_texts() -> Callable[[int, int], list[str]]:
    def make(count: int, seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        return [" ".join(generator.choice(WORDS, size=generator.integers(2, 9))) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def make_embedder() -> MakeEmbedder:
    tokenizer = train_tokenizer(WORDS * 3, 384)

    def make(architecture: str = "modernbert", layers: int = 4, **settings: object) -> Embedder:
        """Weights large enough that every layer matters, as in a trained model."""
        sizes = {
            "hidden_size": 64,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "initializer_range": 0.15,
        }
        backbone = new_backbone(architecture, {**sizes, **settings}, tokenizer, 3)
        return Embedder(backbone, tokenizer, EmbedderSpec(document_length=32)).eval()

    return make

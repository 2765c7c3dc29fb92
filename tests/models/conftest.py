from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from embedline.config.model import Prompt
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXTS = [
    "Как настроить почту на телефоне?",
    "The printer does not answer.",
    "",
    "VPN",
    "Ёлка, ёж и 12345 №7!",
    "Переустановите драйвер, перезапустите службу печати и напечатайте пробную страницу. " * 3,
]
MakeEmbedder = Callable[..., Embedder]


@pytest.fixture(scope="session")
def trained_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 512)


@pytest.fixture
def tokenizer(trained_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy for each test: what one changes in it, another does not see."""
    return copy.deepcopy(trained_tokenizer)


@pytest.fixture(scope="session")
def make_embedder(trained_tokenizer: PreTrainedTokenizerFast) -> MakeEmbedder:
    def make(architecture: str = "modernbert", pooling: str = "mean", **settings: object) -> Embedder:
        prompts = PromptTable(
            {
                "default": Prompt(query="search_query: ", document="search_document: "),
                "faq": Prompt(query="Instruct: ответь\nQuery: "),
            }
        )
        spec = EmbedderSpec(pooling, query_length=16, document_length=40, dims=(16, 8), prompts=prompts)
        tokenizer = copy.deepcopy(trained_tokenizer)
        backbone = new_backbone(architecture, {**SIZES, **settings}, tokenizer, 1)
        return Embedder(backbone, tokenizer, spec).eval()

    return make


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)

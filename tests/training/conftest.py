from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from embedline.config.model import LatentConfig, Prompt
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.training.batching.records import Record

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
MakeEmbedder = Callable[..., Embedder]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 384)


@pytest.fixture(scope="session")
def make_embedder(tokenizer: PreTrainedTokenizerFast) -> MakeEmbedder:
    """A tiny Embedder, the same for the same arguments; `settings` may bring dropout."""

    def make(
        architecture: str = "bert",
        *,
        seed: int = 1,
        pooling: str = "mean",
        heads: tuple[str, ...] = ("dense",),
        **settings: object,
    ) -> Embedder:
        prompts = PromptTable(
            {
                "default": Prompt(query="search_query: ", document="search_document: "),
                "faq": Prompt(query="Instruct: answer\nQuery: "),
            }
        )
        spec = EmbedderSpec(
            pooling,
            heads=heads,
            latent=LatentConfig(latents=8, heads=2),
            mcls_every=8,
            multi_vector_width=16 if "multi_vector" in heads else None,
            query_length=16,
            document_length=24,
            dims=(16, 8),
            prompts=prompts,
        )
        backbone = new_backbone(architecture, {**SIZES, **settings}, tokenizer, seed)
        return Embedder(backbone, tokenizer, spec)

    return make


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    def make(
        query: str,
        positives: list[str],
        negatives: list[str] | None = None,
        task_type: str = "short-long",
        score: float | None = None,
    ) -> Record:
        return Record(query, query, positives, negatives or [], task_type, "ru", score)

    return make


@pytest.fixture
def dies_at_its_fourth_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], list[int]]:
    """A training whose steps are of the class is killed in its fourth; the steps after that work again.

    Returns a list that grows by one a call.
    """

    def arm(step: Any) -> list[int]:
        real = step.__call__
        calls: list[int] = []

        def dying(self: Any, module: Any, batch: Any) -> Any:
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return real(self, module, batch)

        monkeypatch.setattr(step, "__call__", dying)
        return calls

    return arm


@pytest.fixture(scope="session")
def losses_of() -> Callable[..., list[float]]:
    """The losses of 30 steps on one batch."""

    def train(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> list[float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model(**given)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return train

"""The embedding model: a transformers backbone, a pooling, and what it needs to know about its inputs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from embedline.models.batching import token_batches
from embedline.models.pooling import POOLING
from embedline.models.prompts import PromptTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedderSpec:
    """What a model folder says beside its weights.

    Args:
        query_length, document_length: tokens after which a text of that side is cut.
        dims: Matryoshka dims, the full width not included.
    """

    pooling: str = "mean"
    query_length: int = 64
    document_length: int = 256
    dims: tuple[int, ...] = ()
    prompts: PromptTable = field(default_factory=PromptTable)


class Embedder(nn.Module):
    """Texts in, vectors out."""

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: EmbedderSpec
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.spec = backbone, tokenizer, spec
        self.pool = POOLING[spec.pooling]

    def with_spec(self, spec: EmbedderSpec) -> Embedder:
        """The same weights under another spec."""
        return Embedder(self.backbone, self.tokenizer, spec)

    @property
    def width(self) -> int:
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (B × T) to vectors in fp32 (B × D), not normalised."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors: Tensor = self.pool(states, attention_mask)
        return vectors

    def tokenize(self, texts: Sequence[str], *, prompt: str = "", max_length: int) -> list[list[int]]:
        """Token ids a text, special tokens included, cut at `max_length`."""
        if not texts:
            return []
        encoded = self.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def pad(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Rows of ids to `input_ids` and `attention_mask` (B × T), padded on the right."""
        width = max(len(row) for row in ids)
        pad = self.tokenizer.pad_token_id
        tokens = np.full((len(ids), width), 0 if pad is None else pad, dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)], mask[i, : len(row)] = row, 1
        device = self.device
        return {
            "input_ids": torch.from_numpy(tokens).to(device),
            "attention_mask": torch.from_numpy(mask).to(device),
        }

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_length: int | None = None,
        batch_tokens: int = 8192,
        bf16: bool = False,
        normalize: bool = True,
    ) -> np.ndarray:
        """Vectors of `texts` (N × D, float32), in their order; batches hold texts of like length.

        Args:
            batch_tokens: tokens a batch, padding included: what bounds the memory.
        """
        was_training = self.training
        self.eval()
        ids = self.tokenize(texts, prompt=prompt, max_length=max_length or self.spec.document_length)
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        for rows in token_batches([len(row) for row in ids], batch_tokens):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                pooled = self(**self.pad([ids[i] for i in rows]))
            pooled = F.normalize(pooled.float(), dim=-1) if normalize else pooled.float()
            vectors[rows] = pooled.cpu().numpy()
        self.train(was_training)
        return vectors

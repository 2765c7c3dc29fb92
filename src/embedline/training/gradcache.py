"""GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").

The gradient of a contrastive loss with respect to the vectors needs no encoder graph (section 3.2): encode
all chunks without a graph, take the loss and its gradient at the vectors, then encode each chunk again with
a graph and push that gradient through it. The result is the gradient of the whole batch, in the memory of
one chunk. Accumulating gradients over small batches is not: each would see only its own negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.heads import Encoded

# Vectors (N × D, not normalised), or `Encoded` where there are other heads, to a scalar and metrics.
Loss = Callable[[Any], tuple[Tensor, dict[str, float]]]


@dataclass
class _Chunk:
    """Rows encoded together; `encoded` keeps its graph when the chunk is resident."""

    rows: Tensor
    inputs: dict[str, Tensor]
    randomness: _Randomness
    encoded: Encoded


class GradCache:
    """One step: `step(ids, loss)` leaves the gradient of `loss(model of ids)` in the model's parameters.

    Args:
        batch_tokens: tokens of a chunk, padding included.
        resident_tokens: tokens whose graph may be kept, which saves their second encoding; the rest of the
            batch is cached. 0 is the paper's algorithm; a batch that fits entirely is plain training.
        bf16: encode under bf16 autocast; vectors and loss stay fp32.
    """

    def __init__(
        self, model: Embedder, *, batch_tokens: int, resident_tokens: int = 0, bf16: bool = False
    ) -> None:
        self.model, self.batch_tokens, self.bf16 = model, batch_tokens, bf16
        self.resident_tokens = resident_tokens

    def step(
        self, ids: Sequence[Sequence[int]], loss: Loss, *, dense_only: bool = False
    ) -> tuple[Tensor, dict[str, float]]:
        """Token ids of N texts; `loss` maps what the model gives for them to a scalar and metrics.

        It is given dense vectors (N × D), or `Encoded` when the model has other heads: lexical N × T and
        tokens N × T × K, where T is the longest text's tokens and what a shorter one lacks is 0.

        Args:
            dense_only: leave the other heads out, for a loss that does not use them.
        """
        heads = bool(len(self.model.heads)) and not dense_only
        chunks = self._forward(ids, heads)
        whole = _gathered(chunks, len(ids))
        with torch.enable_grad():
            value, metrics = loss(whole if heads else whole.dense)
        value.backward()  # type: ignore[no-untyped-call]
        if all(tensor.grad is None for tensor in whole if tensor is not None):
            raise RuntimeError("the loss does not depend on the vectors")
        for chunk in chunks:
            self._backward(chunk, whole, heads)
        return value.detach(), metrics

    def _forward(self, ids: Sequence[Sequence[int]], heads: bool) -> list[_Chunk]:
        chunks, budget = [], self.resident_tokens
        for rows in token_batches([len(row) for row in ids], self.batch_tokens):
            inputs = self.model.pad([ids[i] for i in rows])
            randomness = _Randomness(self.model.device)
            resident = inputs["input_ids"].numel() <= budget
            budget -= inputs["input_ids"].numel() if resident else 0
            with torch.set_grad_enabled(resident):
                encoded = self._encode(inputs, heads)
            place = torch.from_numpy(np.ascontiguousarray(rows)).to(encoded.dense.device)
            chunks.append(_Chunk(place, inputs, randomness, encoded))
        return chunks

    def _backward(self, chunk: _Chunk, whole: Encoded, heads: bool) -> None:
        """Push the gradients at the chunk's outputs through the encoder."""
        encoded = chunk.encoded
        if not encoded.dense.requires_grad:
            with chunk.randomness.replayed(), torch.enable_grad():
                encoded = self._encode(chunk.inputs, heads)
        outputs, gradients = [], []
        for mine, theirs in zip(encoded, whole, strict=True):
            if mine is not None and theirs is not None and theirs.grad is not None:
                outputs.append(mine)
                gradients.append(theirs.grad[chunk.rows, : mine.shape[1]])
        torch.autograd.backward(outputs, gradients)

    def _encode(self, inputs: dict[str, Tensor], heads: bool) -> Encoded:
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            return self.model.represent(**inputs) if heads else Encoded(self.model(**inputs))


def _gathered(chunks: list[_Chunk], count: int) -> Encoded:
    """The outputs of all chunks in the order of the texts, detached, as leaves of a new graph."""
    parts: list[Tensor | None] = []
    for name in Encoded._fields:
        tensors: list[Tensor | None] = [getattr(chunk.encoded, name) for chunk in chunks]
        first = tensors[0]
        if first is None:
            parts.append(None)
            continue
        longest = max(tensor.shape[1] for tensor in tensors if tensor is not None)
        whole = first.new_zeros(count, longest, *first.shape[2:])
        for chunk, tensor in zip(chunks, tensors, strict=True):
            if tensor is not None:
                whole[chunk.rows, : tensor.shape[1]] = tensor.detach()
        parts.append(whole.requires_grad_())
    return Encoded(*parts)  # type: ignore[arg-type]


class _Randomness:
    """The generators' states before a chunk's first encoding: dropout must draw the same the second time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.device] if self.cuda is not None else []):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield

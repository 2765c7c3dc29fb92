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

import numpy as np
import torch
from torch import Tensor

from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder

Loss = Callable[[Tensor], tuple[Tensor, dict[str, float]]]


@dataclass
class _Chunk:
    """Rows encoded together; `vectors` keeps its graph when the chunk is resident."""

    rows: Tensor
    inputs: dict[str, Tensor]
    randomness: _Randomness
    vectors: Tensor


class GradCache:
    """One step: `step(ids, loss)` leaves the gradient of `loss(vectors of ids)` in the model's parameters.

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

    def step(self, ids: Sequence[Sequence[int]], loss: Loss) -> tuple[Tensor, dict[str, float]]:
        """Token ids of N texts; `loss` maps their vectors (N × D, not normalised) to a scalar and metrics."""
        chunks = self._forward(ids)
        value, metrics, gradients_ND = self._cache(chunks, len(ids), loss)
        for chunk in chunks:
            self._backward(chunk, gradients_ND[chunk.rows])
        return value, metrics

    def _forward(self, ids: Sequence[Sequence[int]]) -> list[_Chunk]:
        chunks, budget = [], self.resident_tokens
        for rows in token_batches([len(row) for row in ids], self.batch_tokens):
            inputs = self.model.pad([ids[i] for i in rows])
            randomness = _Randomness(self.model.device)
            resident = inputs["input_ids"].numel() <= budget
            budget -= inputs["input_ids"].numel() if resident else 0
            with torch.set_grad_enabled(resident):
                vectors = self._encode(inputs)
            place = torch.from_numpy(np.ascontiguousarray(rows)).to(vectors.device)
            chunks.append(_Chunk(place, inputs, randomness, vectors))
        return chunks

    def _cache(self, chunks: list[_Chunk], count: int, loss: Loss) -> tuple[Tensor, dict[str, float], Tensor]:
        first = chunks[0].vectors
        vectors_ND = first.new_empty(count, first.shape[1])
        for chunk in chunks:
            vectors_ND[chunk.rows] = chunk.vectors.detach()
        vectors_ND.requires_grad_()
        with torch.enable_grad():
            value, metrics = loss(vectors_ND)
        value.backward()  # type: ignore[no-untyped-call]
        if vectors_ND.grad is None:
            raise RuntimeError("the loss does not depend on the vectors")
        return value.detach(), metrics, vectors_ND.grad

    def _backward(self, chunk: _Chunk, gradients_BD: Tensor) -> None:
        if chunk.vectors.requires_grad:
            chunk.vectors.backward(gradients_BD)  # type: ignore[no-untyped-call]
            return
        with chunk.randomness.replayed(), torch.enable_grad():
            vectors = self._encode(chunk.inputs)
        vectors.backward(gradients_BD)  # type: ignore[no-untyped-call]

    def _encode(self, inputs: dict[str, Tensor]) -> Tensor:
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            vectors: Tensor = self.model(**inputs)
        return vectors.float()


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

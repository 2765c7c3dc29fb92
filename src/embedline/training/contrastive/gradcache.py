"""GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").

The gradient of a contrastive loss with respect to the vectors needs no encoder graph (section 3.2): encode
all chunks without a graph, take the loss and its gradient at the vectors, then encode each chunk again with
a graph and push that gradient through it. The result is the gradient of the whole batch, in the memory of
one chunk. Accumulating gradients over small batches is not: each would see only its own negatives.

Several processes share a batch in the same way: each encodes its own texts, all get all vectors.
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
from embedline.training.contrastive.activation_memory import Graph, room_for
from embedline.training.engine import processes
from embedline.training.engine.malloc_trim import Heap
from embedline.training.engine.step_timer import Metrics, Watch

# Vectors (N × D, not normalised), or `Encoded` where there are other heads, to a scalar and metrics.
Loss = Callable[[Any], tuple[Tensor, Metrics]]


@dataclass
class TokenBudget:
    """Tokens of one chunk, padding included, and tokens whose graph may be kept until the loss is known.

    Where `resident` is None, the first chunk tells how many of them memory has room for.
    """

    chunk: int
    resident: int | None = 0

    def halve(self) -> bool:
        """Half of both; False when a chunk is so small already that its length is not what fills memory."""
        if self.chunk <= SMALLEST_CHUNK:
            return False
        self.chunk = max(SMALLEST_CHUNK, self.chunk // 2)
        self.resident = None if self.resident is None else self.resident // 2
        return True


SMALLEST_CHUNK = 16
_Part = tuple[Tensor, Tensor]  # numbers of some of the N texts, and what the model gave for them


@dataclass
class _Chunk:
    """Rows encoded together; `resident` is what the model gave, with its graph, where that is kept."""

    rows: Tensor
    inputs: dict[str, Tensor]
    randomness: _Randomness
    resident: Encoded | None


class GradCache:
    """One step: `step(ids, loss)` leaves the gradient of `loss(model of ids)` in the model's parameters.

    Where several processes train, each has the gradient of its own share of the texts: their sum is the
    gradient of the loss. Parameters of the loss itself have all of theirs in every process.

    Args:
        batch_tokens: tokens of a chunk, padding included.
        resident_tokens: tokens whose graph may be kept, which saves their second encoding; the rest of the
            batch is cached. 0 is the paper's algorithm; a batch that fits entirely is plain training. None:
            as many as memory has room for.
        bf16: encode under bf16 autocast; vectors and loss stay fp32.
        watch: told what is encoded, and when.
    """

    def __init__(
        self,
        model: Embedder,
        *,
        batch_tokens: int,
        resident_tokens: int | None = 0,
        bf16: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.bf16, self.watch = model, bf16, watch or Watch()
        self.budget = TokenBudget(batch_tokens, resident_tokens)
        self.heap = Heap()

    def step(
        self, ids: Sequence[Sequence[int]], loss: Loss, *, dense_only: bool = False
    ) -> tuple[Tensor, Metrics]:
        """Token ids of N texts; `loss` maps what the model gives for them to a scalar and metrics.

        It is given dense vectors (N × D), or `Encoded` when the model has other heads: lexical N × T and
        tokens N × T × K, where T is the longest text's tokens and what a shorter one lacks is 0.

        Args:
            dense_only: leave the other heads out, for a loss that does not use them.
        """
        heads = bool(len(self.model.heads)) and not dense_only
        share = processes.share_of([len(row) for row in ids])
        processes.require_shares(share, ids)
        processes.own_randomness()
        chunks, outputs = processes.agreed(lambda: self._forward(ids, share, heads))
        whole = _gathered(chunks, outputs, len(ids))
        del outputs
        return processes.agreed(lambda: self._learn(chunks, whole, loss, heads))

    def _forward(
        self, ids: Sequence[Sequence[int]], share: np.ndarray, heads: bool
    ) -> tuple[list[_Chunk], list[Encoded]]:
        """The chunks of this process, and what the model gives for each."""
        chunks, outputs, kept = [], [], 0
        for places in token_batches([len(ids[i]) for i in share], self.budget.chunk):
            rows = share[places]
            inputs = self.model.pad([ids[i] for i in rows])
            tokens = inputs["input_ids"].numel()
            self.watch.padded += tokens
            randomness = _Randomness(self.model.device)
            if self.budget.resident is None:
                resident, encoded = True, self._measured(inputs, heads)
            else:
                resident = kept + tokens <= self.budget.resident
                with torch.set_grad_enabled(resident):
                    encoded = self._encode(inputs, heads)
            kept += tokens if resident else 0
            place = torch.from_numpy(np.ascontiguousarray(rows)).to(encoded.dense.device)
            chunks.append(_Chunk(place, inputs, randomness, encoded if resident else None))
            outputs.append(Encoded(*(None if each is None else each.detach() for each in encoded)))  # type: ignore[arg-type]
            if not resident:
                self.heap.settle()
        return chunks, outputs

    def _measured(self, inputs: dict[str, Tensor], heads: bool) -> Encoded:
        """The first chunk, with its graph, which tells how many tokens may keep theirs."""
        graph, tokens = Graph(self.model), inputs["input_ids"].numel()
        with graph.made(), torch.enable_grad():
            encoded = self._encode(inputs, heads)
        self.budget.resident = tokens + room_for(self.model, graph, tokens)
        return encoded

    def _learn(self, chunks: list[_Chunk], whole: Encoded, loss: Loss, heads: bool) -> tuple[Tensor, Metrics]:
        """The loss of all vectors, and its gradient through the chunks of this process."""
        with self.watch.phase("forward"), torch.enable_grad():
            value, metrics = loss(whole if heads else whole.dense)
        with self.watch.phase("backward"):
            value.backward()  # type: ignore[no-untyped-call]
        if all(tensor.grad is None for tensor in whole if tensor is not None):
            raise RuntimeError("the loss does not depend on the vectors")
        self.heap.settle()
        for chunk in chunks:
            self._backward(chunk, whole, heads)
            self.heap.settle()
        return value.detach(), metrics

    def _backward(self, chunk: _Chunk, whole: Encoded, heads: bool) -> None:
        """Push the gradients at the chunk's outputs through the encoder."""
        encoded = chunk.resident
        if encoded is None:
            with chunk.randomness.replayed(), torch.enable_grad():
                encoded = self._encode(chunk.inputs, heads)
        outputs, gradients = [], []
        for mine, theirs in zip(encoded, whole, strict=True):
            if mine is not None and theirs is not None and theirs.grad is not None:
                outputs.append(mine)
                gradients.append(theirs.grad[chunk.rows, : mine.shape[1]])
        with self.watch.phase("backward"):
            torch.autograd.backward(outputs, gradients)

    def _encode(self, inputs: dict[str, Tensor], heads: bool) -> Encoded:
        autocast = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16)
        with self.watch.phase("forward"), autocast:
            return self.model.represent(**inputs) if heads else Encoded(self.model(**inputs))


def _gathered(chunks: list[_Chunk], outputs: list[Encoded], count: int) -> Encoded:
    """The outputs of all chunks of all processes in the order of the texts, as leaves of a new graph.

    Each has N rows, as wide as the widest chunk's; None where no process has it.
    """
    parts: list[list[_Part]] = [
        [
            (chunk.rows, tensor)
            for chunk, encoded in zip(chunks, outputs, strict=True)
            if (tensor := encoded[i]) is not None
        ]
        for i in range(len(Encoded._fields))
    ]
    # A process without a text (fewer texts than processes) learns the shapes from the others.
    extents = processes.largest([size for part in parts for size in _extents(part)])
    shapes = [extents[i + 1 : i + 1 + extents[i]] for i in range(0, len(extents), 3)]
    like = outputs[0].dense if outputs else torch.zeros((), device=processes.device())
    wholes = processes.agreed(
        lambda: [_filled(part, count, shape, like) for part, shape in zip(parts, shapes, strict=True)]
    )
    # The others' rows are zeros here: the sum is exact.
    return Encoded(*(None if each is None else processes.total(each).requires_grad_() for each in wholes))  # type: ignore[arg-type]


def _extents(part: list[_Part]) -> tuple[int, int, int]:
    """Of one output: how many dimensions its rows have, and how long those are at most; zeros without one."""
    shapes = [tensor.shape[1:] for _, tensor in part]
    first, second = (max((shape[i] for shape in shapes if i < len(shape)), default=0) for i in (0, 1))
    return len(shapes[0]) if shapes else 0, first, second


def _filled(part: list[_Part], count: int, shape: list[int], like: Tensor) -> Tensor | None:
    """N rows of a shape: those of this process in their places, zeros elsewhere."""
    if not shape:
        return None
    whole = torch.zeros(count, *shape, dtype=like.dtype, device=like.device)
    for rows, tensor in part:
        whole[rows, : tensor.shape[1]] = tensor
    return whole


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

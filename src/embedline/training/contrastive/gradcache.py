"""GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").

The gradient of a contrastive loss with respect to the vectors needs no encoder graph (section 3.2): encode
all chunks without a graph, take the loss and its gradient at the vectors, then encode each chunk again with
a graph and push that gradient through it. The result is the gradient of the whole batch, in the memory of
one chunk. Accumulated gradients of small batches are not: each would have only its own negatives.

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
from embedline.training.contrastive.activation_memory import SavedTensors, resident_token_budget
from embedline.training.engine import processes
from embedline.training.engine.malloc_trim import MallocTrim
from embedline.training.engine.step_timer import Metrics, StepTimer
from embedline.training.engine.token_budget import TokenBudget

# From vectors (N × D, not normalised), or `Encoded` where there are other heads, to a scalar and metrics.
Loss = Callable[[Any], tuple[Tensor, Metrics]]

_Part = tuple[Tensor, Tensor]  # numbers of some of the N texts, and one output of the model for them


@dataclass
class _Chunk:
    """Texts encoded together; `resident` is the model's output with its graph, where that is kept."""

    rows: Tensor
    inputs: dict[str, Tensor]
    randomness: _Randomness
    resident: Encoded | None


class GradCache:
    """The gradient of a loss over all vectors of a batch, computed in the memory of one chunk.

    With several processes each has the gradient of its own share of the texts: the sum over the processes is
    the gradient of the loss. Parameters of the loss itself have their whole gradient in every process.

    Example:
        >>> cache = GradCache(embedder, batch_tokens=4096)
        >>> loss, metrics = cache.step(embedder.tokenize(texts, max_length=128), loss_of_vectors)
        >>> optimizer.step()

    Args:
        model: the embedder that is trained.
        batch_tokens: tokens of a chunk, padding included.
        resident_tokens: tokens whose graph may be kept, which saves their second encoding; the rest of the
            batch is cached. 0 is the paper's algorithm; a batch that fits entirely is plain training. None:
            as many as fit into memory.
        bf16: encode under bf16 autocast; vectors and loss stay fp32.
        timer: measures the phases and counts the encoded tokens.
    """

    def __init__(
        self,
        model: Embedder,
        *,
        batch_tokens: int,
        resident_tokens: int | None = 0,
        bf16: bool = False,
        timer: StepTimer | None = None,
    ) -> None:
        self.model, self.bf16, self.timer = model, bf16, timer or StepTimer()
        self.budget = TokenBudget(batch_tokens, resident_tokens)
        self.malloc_trim = MallocTrim()

    def step(
        self, ids: Sequence[Sequence[int]], loss: Loss, *, dense_only: bool = False
    ) -> tuple[Tensor, Metrics]:
        """Leave the gradient of `loss` in the model's parameters.

        Args:
            ids: token ids of N texts.
            loss: maps the model's outputs to a scalar and metrics. It gets dense vectors (N × D), or
                `Encoded` when the model has other heads: lexical N × T and tokens N × T × K, where T is the
                longest text's tokens; shorter texts are filled up with 0.
            dense_only: leave the other heads out, for a loss that does not use them.

        Returns:
            The loss, without a graph, and its metrics.
        """
        heads = bool(len(self.model.heads)) and not dense_only
        share = processes.share_of([len(row) for row in ids])
        processes.require_same_batch(share, ids)
        processes.seed_by_rank()
        chunks, outputs = processes.run_in_lockstep(lambda: self._forward(ids, share, heads))
        whole = _gathered(chunks, outputs, len(ids))
        del outputs
        return processes.run_in_lockstep(lambda: self._loss_and_backward(chunks, whole, loss, heads))

    def _forward(
        self, ids: Sequence[Sequence[int]], share: np.ndarray, heads: bool
    ) -> tuple[list[_Chunk], list[Encoded]]:
        """Return the chunks of this process, and the model's outputs for each."""
        chunks, outputs, kept = [], [], 0
        for positions in token_batches([len(ids[i]) for i in share], self.budget.chunk):
            rows = share[positions]
            inputs = self.model.pad([ids[i] for i in rows])
            tokens = inputs["input_ids"].numel()
            self.timer.padded_tokens += tokens
            randomness = _Randomness(self.model.device)
            if self.budget.resident is None:
                resident, encoded = True, self._encode_measured(inputs, heads)
            else:
                resident = kept + tokens <= self.budget.resident
                with torch.set_grad_enabled(resident):
                    encoded = self._encode(inputs, heads)
            kept += tokens if resident else 0
            numbers = torch.from_numpy(np.ascontiguousarray(rows)).to(encoded.dense.device)
            chunks.append(_Chunk(numbers, inputs, randomness, encoded if resident else None))
            outputs.append(Encoded(*(None if each is None else each.detach() for each in encoded)))  # type: ignore[arg-type]
            if not resident:
                self.malloc_trim.after_chunk()
        return chunks, outputs

    def _encode_measured(self, inputs: dict[str, Tensor], heads: bool) -> Encoded:
        """Encode the first chunk with its graph, and measure how many tokens may keep theirs."""
        saved, tokens = SavedTensors(self.model), inputs["input_ids"].numel()
        with saved.counting(), torch.enable_grad():
            encoded = self._encode(inputs, heads)
        self.budget.resident = tokens + resident_token_budget(self.model, saved, tokens)
        return encoded

    def _loss_and_backward(
        self, chunks: list[_Chunk], whole: Encoded, loss: Loss, heads: bool
    ) -> tuple[Tensor, Metrics]:
        """Take the loss of all vectors, and push its gradient through the chunks of this process."""
        with self.timer.phase("forward"), torch.enable_grad():
            value, metrics = loss(whole if heads else whole.dense)
        with self.timer.phase("backward"):
            value.backward()  # type: ignore[no-untyped-call]
        if all(tensor.grad is None for tensor in whole if tensor is not None):
            raise RuntimeError("the loss does not depend on the vectors")
        self.malloc_trim.after_chunk()
        for chunk in chunks:
            self._backward(chunk, whole, heads)
            self.malloc_trim.after_chunk()
        return value.detach(), metrics

    def _backward(self, chunk: _Chunk, whole: Encoded, heads: bool) -> None:
        """Push the gradients at the chunk's outputs through the encoder."""
        encoded = chunk.resident
        if encoded is None:
            with chunk.randomness.replayed(), torch.enable_grad():
                encoded = self._encode(chunk.inputs, heads)
        outputs, gradients = [], []
        for output, gathered in zip(encoded, whole, strict=True):
            if output is None or gathered is None or gathered.grad is None:
                continue
            if output.requires_grad:  # a frozen encoder's vectors do not
                outputs.append(output)
                gradients.append(gathered.grad[chunk.rows, : output.shape[1]])
        with self.timer.phase("backward"):
            torch.autograd.backward(outputs, gradients)

    def _encode(self, inputs: dict[str, Tensor], heads: bool) -> Encoded:
        autocast = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16)
        with self.timer.phase("forward"), autocast:
            return self.model.represent(**inputs) if heads else Encoded(self.model(**inputs))


def _gathered(chunks: list[_Chunk], outputs: list[Encoded], count: int) -> Encoded:
    """Gather the outputs of all chunks of all processes in the order of the texts, as leaves of a new graph.

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
    # A process without a text (fewer texts than processes) receives the shapes from the others.
    extents = processes.max_over_processes([size for part in parts for size in _extents(part)])
    shapes = [extents[i + 1 : i + 1 + extents[i]] for i in range(0, len(extents), 3)]
    like = outputs[0].dense if outputs else torch.zeros((), device=processes.device())
    wholes = processes.run_in_lockstep(
        lambda: [_filled(part, count, shape, like) for part, shape in zip(parts, shapes, strict=True)]
    )
    # The rows of other processes are zeros here, so the sum is exact.
    summed = (
        None if each is None else processes.sum_over_processes(each).requires_grad_() for each in wholes
    )
    return Encoded(*summed)  # type: ignore[arg-type]


def _extents(part: list[_Part]) -> tuple[int, int, int]:
    """Return the number of dimensions of an output's rows, and their largest sizes; zeros without a row."""
    shapes = [tensor.shape[1:] for _, tensor in part]
    first, second = (max((shape[i] for shape in shapes if i < len(shape)), default=0) for i in (0, 1))
    return len(shapes[0]) if shapes else 0, first, second


def _filled(part: list[_Part], count: int, shape: list[int], like: Tensor) -> Tensor | None:
    """Return N rows of a shape: those of this process in their order, zeros elsewhere."""
    if not shape:
        return None
    whole = torch.zeros(count, *shape, dtype=like.dtype, device=like.device)
    for rows, tensor in part:
        whole[rows, : tensor.shape[1]] = tensor
    return whole


class _Randomness:
    """The generators' states before a chunk's first encoding: dropout must draw the same at the second."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw as at the first encoding inside, and go on as before after it."""
        with torch.random.fork_rng(devices=[self.device] if self.cuda is not None else []):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield

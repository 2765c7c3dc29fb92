"""The processes of one training (torchrun's ranks): their shares of a batch, and what they exchange.

A training in one process is the usual case: every function here is then the identity.

Each process holds the whole model and the whole batch, encodes its own share of the batch's texts, and gets
the other vectors. All of them compute the loss, over all vectors, so that negatives are global. Each pushes
the gradient of its own share through the encoder; the sum over the processes is the gradient of the batch.
`DistributedDataParallel` is not used: its hooks belong to one backward pass of one forward pass, and
GradCache has many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from embedline.errors import StepError, first_line

T = TypeVar("T")

# Bytes of gradients that are summed at once: large enough that latency does not count, small beside a model.
_BUCKET_BYTES = 64 * 2**20
# Words of the messages about a lack of memory that have no type of their own: torch on a CPU, CUDA, cuBLAS
# and cuDNN, C++.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed", "bad_alloc")


class OutOfMemory(Exception):  # noqa: N818  (a state of the machine that the engine recovers from)
    """A process ran out of memory in a step; raised in all of them."""


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Return whether this process writes checkpoints, metrics and results."""
    return rank() == 0


def device() -> torch.device:
    """Return the device of tensors that processes exchange: each process has its own GPU, or none has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def share_of(lengths: Sequence[int]) -> np.ndarray:
    """Return the rows that this process encodes: longest first, dealt in turn, so that shares are even."""
    if world_size() == 1:
        return np.arange(len(lengths))
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return order[rank() :: world_size()]


def require_same_batch(rows: Sequence[int] | np.ndarray, ids: Sequence[Sequence[int]]) -> None:
    """Check that all processes hold the same batch, and that each of its rows is in one share.

    Raises:
        StepError: the batches differ, or a row is in no share or in several.
    """
    if world_size() == 1:
        return
    digest = hash(tuple(map(tuple, ids))) >> 1  # of integers: the same in every process
    seen = torch.tensor([digest, -digest, len(ids), -len(ids)], dtype=torch.int64, device=device())
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    held = torch.zeros(len(ids), dtype=torch.int32, device=device())
    if seen[0] != -seen[1] or seen[2] != -seen[3]:
        raise StepError("the processes drew different batches.", where="training", fix=_SAME)
    held[torch.as_tensor(np.asarray(rows, dtype=np.int64), device=held.device)] = 1
    dist.all_reduce(held)
    if not bool((held == 1).all()):
        raise StepError("a text is in no share of the batch, or in several.", where="training", fix=_SAME)


_SAME = "All processes need the same code, configuration and data."


def seed_by_rank() -> None:
    """Seed each process by its rank, so that dropout differs; earlier draws are the same in all."""
    if world_size() > 1:
        torch.manual_seed((torch.initial_seed() + 1 + rank()) % 2**63)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def max_over_processes(values: Sequence[int]) -> list[int]:
    """Return the element-wise maximum over the processes."""
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(list(values), dtype=torch.int64, device=device())
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [int(value) for value in tensor]


def any_of(flag: bool) -> bool:
    """Return whether `flag` is true in any process."""
    return bool(max_over_processes([int(flag)])[0])


def broadcast(value: T) -> T:
    """Return the first process's value in all of them."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    received: T = box[0]
    return received


def run_in_lockstep(work: Callable[[], T]) -> T:
    """Return `work()`; if any process runs out of memory in it, raise that in all of them.

    Otherwise the other processes would wait in the next exchange for the one that has stopped. `work` may not
    exchange anything outside another `run_in_lockstep`.

    Raises:
        OutOfMemory: in every process.
    """
    result: T | None = None
    message = ""
    try:
        result = work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = first_line(error)
    # Out of the handler: the error's frames would keep the step's tensors alive.
    if any_of(bool(message)):
        raise OutOfMemory(message or "another process ran out of memory")
    return result  # type: ignore[return-value]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means a lack of memory, on a GPU or on the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def broadcast_weights(module: nn.Module) -> None:
    """Copy the first process's weights and buffers to all of them."""
    if world_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def sum_gradients(module: nn.Module) -> None:
    """Sum each parameter's gradient over the processes; it stays None where no process has one."""
    if world_size() == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    given = max_over_processes([int(p.grad is not None) for p in parameters])
    summed_over = [p for p, has in zip(parameters, given, strict=True) if has]
    for parameter in summed_over:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in summed_over if p.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _buckets(gradients: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group neighbouring gradients of one type, up to a number of bytes."""
    buckets: list[list[Tensor]] = []
    room = 0
    for gradient in gradients:
        size = gradient.numel() * gradient.element_size()
        if not buckets or size > room or buckets[-1][0].dtype != gradient.dtype:
            buckets.append([])
            room = _BUCKET_BYTES
        buckets[-1].append(gradient)
        room -= size
    return buckets

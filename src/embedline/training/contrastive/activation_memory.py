"""The memory that the graph of an encoding takes, and the tokens of a batch whose graphs fit into memory.

GradCache encodes twice what it does not keep. The memory of a kept token depends on the model, its attention,
dropout and precision, so it is measured: what autograd saves for the first chunk, which is of the longest
texts, whose tokens take the most. What is kept does not change a gradient's last digit, only its cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from embedline.resources import available_bytes
from embedline.training.engine import processes

# Share of the free memory for kept graphs; the rest is for what is not measured: the loss, the tensors that
# the backward pass allocates, other programs.
SHARE = 0.5
# Copies of a trained parameter that the first update allocates: its gradient and Adam's two moments.
_COPIES_AT_UPDATE = 3


class SavedTensors:
    """A counter of the bytes that autograd saves for a graph beside the model's own tensors."""

    def __init__(self, module: nn.Module) -> None:
        self._own = {
            tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())
        }
        self._sizes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """The bytes counted so far; each storage counts once."""
        return sum(self._sizes.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what autograd saves inside."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its own graph, and never be freed


def resident_token_budget(module: nn.Module, saved: SavedTensors, tokens: int) -> int:
    """Return how many more tokens may keep their graphs, beside `tokens` that are counted in `saved`."""
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    free = SHARE * (_free_bytes(next(module.parameters()).device) - _COPIES_AT_UPDATE * trained)
    return max(0, int(free / max(1.0, saved.bytes / tokens)))


def _free_bytes(device: torch.device) -> float:
    """Return the bytes that are free for this process; processes without GPUs may share this machine."""
    if device.type != "cuda":
        return available_bytes() / processes.world_size()
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved

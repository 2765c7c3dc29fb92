"""How many tokens of a batch may keep their graphs: as many as memory has room for.

GradCache encodes twice what it does not keep. What a kept token takes depends on the model, its attention,
dropout and precision, so it is measured: what autograd saves for the first chunk, which is of the longest
texts, whose tokens take the most. What is kept does not change a gradient's last digit, only its cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from embedline.models.memory import available_bytes
from embedline.training.engine import processes

# Of the free memory; the other half is for what is not measured: the loss, what the backward pass makes
# itself, other programs.
SHARE = 0.5
_LATER = 3  # copies of a trained parameter that come with the first update: its gradient, Adam's moments


class Graph:
    """What a graph holds beside the model's own tensors, in bytes."""

    def __init__(self, module: nn.Module) -> None:
        self._own = {
            tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())
        }
        self._sizes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    @contextmanager
    def made(self) -> Iterator[None]:
        """What is computed inside is counted."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own:
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its own graph, and never be freed


def room_for(module: nn.Module, graph: Graph, tokens: int) -> int:
    """How many more tokens may keep their graphs, beside the `graph` of so many that is there already."""
    trained = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    free = SHARE * (_free_bytes(next(module.parameters()).device) - _LATER * trained)
    return max(0, int(free / max(1.0, graph.bytes / tokens)))


def _free_bytes(device: torch.device) -> float:
    """For this process; those that train without GPUs may all be on this machine."""
    if device.type != "cuda":
        return available_bytes() / processes.count()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held

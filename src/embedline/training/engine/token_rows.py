"""The rows of a large token table that occur in a step, trained in place of the table.

A step's texts hold a few thousand of a multilingual vocabulary's 250,000 tokens. Trained as one parameter,
the table costs a gradient of its whole size in each chunk's backward pass, and AdamW walks all of it. So
before a step the rows of its tokens are put into the embedding's parameter; after the update they go back.
Gradient, norm, clipping, the sum over processes and the optimizer see an ordinary, small parameter.

The result is AdamW's on the whole table. The update of a row that does not occur follows from the row, its
moments and the learning rates alone: it is made later, by the optimizer's own kernel, before the row is used
again, and for all rows before a checkpoint and at the end. This is not the lazy Adam of
`torch.optim.SparseAdam`, which leaves those updates out.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from embedline.models.embedder import Embedder

# A smaller table, 16 MB, costs less than 2 % of a step.
_MIN_NUMBERS = 2**22
# Kernels compute the numbers of a row alike wherever it lies in memory if it fills whole vectors of 64 bytes.
_ROW_BYTES = 64
_BLOCK = 512  # rows that are brought up to date together: they stay in a core's cache
_MOMENTS = ("exp_avg", "exp_avg_sq")


def token_rows(embedder: Embedder) -> TokenRows | None:
    """Return the rows of the embedder's token table; None where it is trained as one parameter.

    That is a small table, one that is not trained (LoRA) or is also another layer's weight (a tied output
    layer gives every row a gradient), and any table on a GPU, whose memory moves it in a millisecond.
    """
    table = embedder.backbone.get_input_embeddings()
    if not isinstance(table, nn.Embedding) or table.sparse or table.max_norm is not None:
        return None
    weight = table.weight
    uses = sum(weight is each for module in embedder.modules() for each in module._parameters.values())
    if weight.device.type != "cpu" or not weight.requires_grad or uses > 1:
        return None
    if weight.numel() < _MIN_NUMBERS or table.embedding_dim * weight.element_size() % _ROW_BYTES:
        return None
    pad = embedder.tokenizer.pad_token_id
    return TokenRows(table, [*embedder.tokenizer.all_special_ids, 0 if pad is None else pad])


class TokenRows:
    """The rows of a token table that a step trains.

    Example:
        >>> with TokenRows(table, always=[0]) as rows:
        ...     rows.bind(optimizer)
        ...     rows.select(ids)  # the table's parameter holds only the rows of these tokens
        ...     loss_of(ids).backward()
        ...     optimizer.step()  # the rows are in the table again

    Args:
        table: its parameter is swapped; between steps it is the whole table.
        always: tokens that the model adds to a batch, such as padding.

    Attributes:
        table_VD: the values of all rows, of which some may be due updates until `settle`.
    """

    def __init__(self, table: nn.Embedding, always: Sequence[int]) -> None:
        self.embedding, self.weight, self.always = table, table.weight, sorted(set(always))
        self.table_VD = table.weight.data
        self._padding = table.padding_idx
        self._slot_V = torch.full((len(self.table_VD),), -1)  # each token's row among the selected ones
        self._rows: Tensor | None = None
        self._rates: list[float] = []  # the learning rates of the updates since `settle`
        self._made_V = torch.zeros_like(self._slot_V)  # how many of them each row has
        self._moved_V: Tensor | None = None  # rows whose moments are not 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._hooks = [table.register_forward_pre_hook(self._renumber)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
        for hook in self._hooks:
            hook.remove()

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Follow the updates of `optimizer`, an AdamW over the table's parameter among others."""
        self._optimizer = optimizer
        self._hooks.append(optimizer.register_step_post_hook(lambda *_: self._after_update()))

    def select(self, ids: Sequence[Sequence[int]]) -> None:
        """Put the rows of these tokens into the table's parameter, until the optimizer's step.

        Several processes select the same rows, as each of them holds the whole batch.
        """
        self._put_back()
        state = self._state()
        rows = torch.from_numpy(np.unique(np.concatenate([self.always, *ids]).astype(np.int64)))
        self._catch_up(rows)
        self._whole = [self.table_VD, *(state[name] for name in _MOMENTS)]
        self.weight.data, state["exp_avg"], state["exp_avg_sq"] = (each[rows] for each in self._whole)
        self._slot_V[rows] = torch.arange(len(rows))
        assert self._moved_V is not None
        self._moved_V[rows] = True
        if self._padding is not None:
            slot = int(self._slot_V[self._padding])
            self.embedding.padding_idx = slot if slot >= 0 else None
        self._rows = rows

    def settle(self) -> None:
        """Make all due updates: the parameter, and the optimizer's state of it, are those of the table."""
        self._put_back()
        if self._rates:
            self._catch_up(torch.arange(len(self.table_VD)))
            self._rates.clear()
            self._made_V.zero_()

    def _renumber(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """Replace token ids by the numbers of the selected rows; -1, an error, for a token without a row.

        Between steps the model reads the whole table, without due updates.
        """
        if self._rows is None:
            self.settle()
            return None
        return (self._slot_V[inputs[0]],)

    def _after_update(self) -> None:
        if self.weight.grad is not None:  # a skipped step is no update
            self._rates.append(float(self._group()["lr"]))
        self._put_back()

    def _put_back(self) -> None:
        if self._rows is None:
            return
        state = self._state()
        for whole, part in zip(self._whole, (self.weight.data, *map(state.get, _MOMENTS)), strict=True):
            whole[self._rows] = part
        self.weight.grad = None
        self.weight.data, state["exp_avg"], state["exp_avg_sq"] = self._whole
        self.embedding.padding_idx = self._padding
        self._slot_V[self._rows] = -1
        self._made_V[self._rows] = len(self._rates)
        self._rows = None

    def _state(self) -> dict[str, Any]:
        """Return AdamW's state of the parameter, made here before its first step."""
        assert self._optimizer is not None, "bind comes before select"
        state: dict[str, Any] = self._optimizer.state[self.weight]
        if not state:
            zeros = (torch.zeros_like(self.table_VD) for _ in _MOMENTS)
            state |= {"step": torch.zeros(()), **dict(zip(_MOMENTS, zeros, strict=True))}
            self._moved_V = torch.zeros(len(self.table_VD), dtype=torch.bool)
        elif self._moved_V is None:  # from a checkpoint
            mean_VD, square_VD = (state[name] for name in _MOMENTS)
            self._moved_V = mean_VD.any(1) | square_VD.any(1)
        return state

    def _group(self) -> dict[str, Any]:
        assert self._optimizer is not None
        groups = self._optimizer.param_groups
        return next(each for each in groups if any(self.weight is mine for mine in each["params"]))

    def _catch_up(self, rows: Tensor) -> None:
        """Make the updates that these rows are due."""
        due = rows[self._made_V[rows] < len(self._rates)]
        assert self._moved_V is not None
        moved = self._moved_V[due]
        self._decay(due[~moved])
        self._repeat(due[moved])
        self._made_V[due] = len(self._rates)

    def _decay(self, rows: Tensor) -> None:
        """Decay rows whose moments are 0, in which an update changes nothing else."""
        weight_decay = self._group()["weight_decay"]
        if not weight_decay:
            return
        for block in _blocks(rows):
            values = self.table_VD[block]
            for rate in self._rates:
                values.mul_(1 - rate * weight_decay)
            self.table_VD[block] = values

    def _repeat(self, rows: Tensor) -> None:
        """Update rows once for each step since they occurred, with a gradient of 0."""
        state, group = self._state(), self._group()
        whole = [self.table_VD, *(state[name] for name in _MOMENTS)]
        zeros = torch.zeros(_BLOCK, self.table_VD.shape[1])
        before = float(state["step"]) - len(self._rates)
        for block in _blocks(rows[self._made_V[rows].argsort(stable=True)]):
            made = self._made_V[block].numpy()
            values, mean, square = parts = [each[block] for each in whole]
            for number in range(made[0], len(self._rates)):
                count = int(np.searchsorted(made, number, side="right"))
                adamw(
                    [values[:count]],
                    [zeros[:count]],
                    [mean[:count]],
                    [square[:count]],
                    [],
                    [torch.tensor(before + number)],
                    fused=True,
                    amsgrad=False,
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    lr=self._rates[number],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=False,
                )
            for each, part in zip(whole, parts, strict=True):
                each[block] = part


def _blocks(rows: Tensor) -> list[Tensor]:
    return [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]

"""Removal of rows from a model's token table and from its output layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig


def keep_token_rows(model: nn.Module, layers: Iterable[nn.Module], rows: Sequence[int]) -> None:
    """Leave only some rows of layers that have one row a token, in place; weights that were tied stay tied.

    Args:
        model: every module in it that shares a weight or a bias of the layers gets the shorter one, too.
        layers: embeddings (V × D), and linear output layers (V × D, with a bias of V).
        rows: old token ids, in the order of the new ones.
    """
    index = torch.tensor(rows, dtype=torch.int64)
    shorter: dict[int, nn.Parameter] = {}
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            if id(parameter) not in shorter:
                kept = parameter.detach()[index.to(parameter.device)].contiguous()
                shorter[id(parameter)] = nn.Parameter(kept, requires_grad=parameter.requires_grad)
        _count_rows(layer, rows)
    for module in (model, *model.modules()):
        for name, value in list(module._parameters.items()):
            if value is not None and id(value) in shorter:
                module._parameters[name] = shorter[id(value)]


def _count_rows(layer: nn.Module, rows: Sequence[int]) -> None:
    if isinstance(layer, nn.Embedding):
        layer.num_embeddings = len(rows)
        if layer.padding_idx is not None:
            layer.padding_idx = rows.index(layer.padding_idx) if layer.padding_idx in rows else None
    elif isinstance(layer, nn.Linear):
        layer.out_features = len(rows)


def renumber_config(config: PretrainedConfig, rows: Sequence[int]) -> None:
    """Change the vocabulary's size and the ids of special tokens in a config, in place.

    The id of a token that is no longer there becomes None.
    """
    new: dict[Any, int] = {old: number for number, old in enumerate(rows)}
    ids = {name: value for name, value in vars(config).items() if name.endswith("_token_id")}
    config.vocab_size = len(rows)
    for name, value in ids.items():
        if isinstance(value, list | tuple):
            setattr(config, name, [new[old] for old in value if old in new])
        else:
            setattr(config, name, new.get(value))

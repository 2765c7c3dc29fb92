"""The config of a model that keeps only some of its layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from transformers import PretrainedConfig

# A list under such a name holds layer numbers: mlp_only_layers, full_attn_idxs, attn_layer_indices.
_NUMBERS = re.compile(r"(layers|layer_ids|idxs?|indices|indexes)$")
# Lists that may be as long as the layers by chance.
_NOT_OF_LAYERS = re.compile(r"token|architectures|tasks?$|adaptations$")
_Layers = Sequence[int]


def keep_layers(config: PretrainedConfig, kept: _Layers) -> None:
    """Change the config of a model to that of its layers `kept`, in place.

    A list of one value a layer loses those of the others; layer numbers count anew; numbers of first or last
    layers of a kind count those that stay. A period (every second layer has experts) becomes a list. Another
    rule by number is unknown here: compare the vectors after a reload (`models/reload.py`).
    """
    count = config.num_hidden_layers
    _list_dense_layers(config, count)
    values = {name: _kept_value(name, value, kept, count) for name, value in vars(config).items()}
    changed = {name: value for name, value in values.items() if value is not vars(config)[name]}
    overrides = config.to_dict().get("per_layer_config")  # of single layers, by number
    config.num_hidden_layers = len(kept)
    for name, value in changed.items():
        setattr(config, name, value)
    if overrides:
        by_number = {int(number): values for number, values in overrides.items()}
        setattr(  # noqa: B010 (only recent configs have it)
            config,
            "per_layer_config",
            {new: by_number[old] for new, old in enumerate(kept) if old in by_number},
        )


def _list_dense_layers(config: PretrainedConfig, count: int) -> None:
    """Replace a period of layers with experts (Qwen-MoE) by the list of the layers without."""
    period = getattr(config, "decoder_sparse_step", 1) or 1
    if period > 1 and hasattr(config, "mlp_only_layers"):
        dense = set(config.mlp_only_layers or ()) | {i for i in range(count) if (i + 1) % period}
        config.mlp_only_layers, config.decoder_sparse_step = sorted(dense), 1


def _kept_value(name: str, value: Any, kept: _Layers, count: int) -> Any:
    """Return a setting's value for the layers `kept`; the same object if it is not about layers."""
    if name in _COUNTS and isinstance(value, int) and 0 <= value < count:
        return _COUNTS[name](value, kept, count)
    if not isinstance(value, list | tuple) or _NOT_OF_LAYERS.search(name):
        return value
    if _NUMBERS.search(name) and _are_layer_numbers(value, count):
        return type(value)(kept.index(i) for i in value if i in kept)
    return type(value)(value[i] for i in kept) if len(value) == count else value


def _are_layer_numbers(values: Sequence[Any], count: int) -> bool:
    """Return whether the values are numbers of layers in order, not one flag a layer."""
    numbers = all(type(value) is int and 0 <= value < count for value in values)
    return numbers and all(a < b for a, b in pairwise(values))


def _first(value: int, kept: _Layers, count: int) -> int:
    """Return how many of the first `value` layers stay."""
    return sum(i < value for i in kept)


def _last(value: int, kept: _Layers, count: int) -> int:
    """Return how many of the last `value` layers stay."""
    return sum(i >= count - value for i in kept)


_COUNTS: dict[str, Callable[[int, _Layers, int], int]] = {
    "first_k_dense_replace": _first,
    "num_dense_layers": _first,
    "max_window_layers": _first,
    "moe_layer_start_index": _first,
    "moe_layer_end_index": lambda value, kept, count: _first(value + 1, kept, count) - 1,
    "num_kv_shared_layers": _last,
}

"""Choice of the layers that a model can lose, and their removal."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedline.compress.layer_config import keep_layers
from embedline.errors import InputError
from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.reload import require_described

Method = Literal["even", "last", "angular"]
CANNOT_PRUNE = "Set it to never: this architecture derives something from the numbers of its layers."


def layers_to_drop(share: float, layers: int) -> int:
    """Return `share` of `layers`, rounded; at least one layer is dropped and at least one stays.

    Raises:
        InputError: there is only one layer.
    """
    if layers < 2:
        raise InputError(
            "the model has a single layer: none can be dropped.", where="prune.when", fix="Set it to never."
        )
    return min(max(round(share * layers), 1), layers - 1)


def choose_layers(embedder: Embedder, drop: int, method: Method, texts: Sequence[str] = ()) -> list[int]:
    """Return the layers to keep, in order. Layer 0 always stays: ModernBERT's has no attention norm.

    Example:
        >>> kept = choose_layers(embedder, 3, "angular", texts)
        >>> pruned = without_layers(embedder, kept)

    Args:
        method: `even` spaces the kept layers from first to last; `last` drops the deepest; `angular` drops
            the block that changes the states of `texts` least (`angular_distances`).

    Raises:
        InputError: `drop` is not between 1 and one less than the layers, or `angular` without texts.
    """
    count = len(layer_list(embedder.backbone))
    if not 1 <= drop < count:
        raise InputError(f"{drop} of {count} layers cannot be dropped.", where="prune.drop_share")
    if method == "last":
        return list(range(count - drop))
    if method == "even":
        kept = count - drop
        return [math.floor(i * (count - 1) / max(1, kept - 1) + 0.5) for i in range(kept)]
    if not texts:
        raise InputError("method angular needs texts to measure the layers on.", where="prune.method")
    distances = angular_distances(embedder, drop, texts)
    start = 1 + int(distances[1:].argmin())
    return [*range(start), *range(start + drop, count)]


@torch.no_grad()
def angular_distances(
    embedder: Embedder, block: int, texts: Sequence[str], *, batch_tokens: int = 4096
) -> Tensor:
    """Measure how far `block` layers turn the states, for each layer they may start at (layers − block + 1).

    Gromov et al. 2024, "The Unreasonable Ineffectiveness of the Deeper Layers", section 3.2: the angle
    between the input of layer l and the input of layer l + block, over π. The paper takes the last token,
    which in a decoder attends to the whole text; here every token does, so all real ones are averaged.
    """
    layers = layer_list(embedder.backbone)
    states: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: states.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer in layers
    ]
    hooks.append(
        layers[-1].register_forward_hook(
            lambda _, args, output: states.append(output[0] if isinstance(output, tuple) else output)
        )
    )
    was_training = embedder.training
    embedder.eval()
    ids = embedder.tokenize(texts, max_length=embedder.spec.document_length)
    total, tokens = torch.zeros(len(layers) - block + 1, dtype=torch.float64), 0
    try:
        for rows in token_batches([len(row) for row in ids], batch_tokens):
            states.clear()
            inputs = embedder.pad([ids[i] for i in rows])
            embedder(**inputs)
            real = inputs["attention_mask"].bool()
            tokens += int(real.sum())
            for start in range(len(total)):
                before, after = states[start][real].float(), states[start + block][real].float()
                cosines = F.cosine_similarity(before, after, dim=-1).clamp(-1, 1)
                total[start] += (torch.arccos(cosines) / math.pi).sum().double().cpu()
    finally:
        for hook in hooks:
            hook.remove()
        embedder.train(was_training)
    return total / max(1, tokens)


def without_layers(embedder: Embedder, kept: Sequence[int]) -> Embedder:
    """Return a copy of `embedder` that has only the layers `kept`.

    Raises:
        InputError: saved and loaded, it would be another model.
    """
    backbone = copy.deepcopy(embedder.backbone)
    drop_layers(backbone, kept)
    pruned = embedder.with_backbone(backbone)
    require_described(pruned, "prune.when", CANNOT_PRUNE)
    return pruned


def drop_layers(backbone: PreTrainedModel, kept: Sequence[int]) -> None:
    """Leave only the layers `kept`, in place; saving and loading the result gives the same model.

    The config keeps the settings of these layers, and the layers are numbered anew.
    """
    layers = layer_list(backbone)
    keep_layers(backbone.config, kept)
    remaining = [layers[i] for i in kept]
    for number, layer in enumerate(remaining):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                setattr(module, "layer_idx", number)  # noqa: B010 (a module's attributes are typed as tensors)
    # The list itself is changed, not replaced: the backbone may hold it under several names.
    while len(layers):
        del layers[-1]
    layers.extend(remaining)


def layer_list(backbone: PreTrainedModel) -> nn.ModuleList:
    """Return the stack of layers, which each architecture keeps in another place.

    Raises:
        InputError: no list of modules is as long as the config's number of layers.
    """
    config: Any = backbone.config
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise InputError(f"the layers of {config.model_type} are not found.", where="prune.when")

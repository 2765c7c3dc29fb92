"""Rotary positions stretched by each text's own length, independent of its batch.

This file is copied into the folders of models that use it: it imports torch and transformers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel


def has_dynamic_ntk(config: PretrainedConfig) -> bool:
    """Return whether the config has dynamic NTK, in any of its layer types."""
    return any(kind.get("rope_type") == "dynamic" for kind in rotary_parameters(config).values())


def position_ids_of(attention_mask: Tensor) -> Tensor:
    """Compute position ids (B × T) from the mask; a row's largest is its length − 1, at padding too."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def rotary_modules(backbone: PreTrainedModel) -> Iterator[tuple[nn.Module, str]]:
    """Yield the owner and the attribute name of each rotary module."""
    for owner in list(backbone.modules()):
        for name, module in owner.named_children():
            native = hasattr(module, "rope_type") and hasattr(module, "max_seq_len_cached")
            if native or isinstance(module, RowwiseRotary):
                yield owner, name


class RowwiseRotary(nn.Module):
    """Cosines and sines of rotary positions, with one base frequency per row.

    A row of n tokens, where L is the trained length, α the factor and d the rotated width (NTK-aware scaling
    by its authors bloc97 and emozilla; the form of transformers and Nomic Embed):

        θ(n) = θ · (α · max(n, L) / L − (α − 1)) ^ (d / (d − 2))

    The code has no branches on data, so that it exports to ONNX.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.trained = float(config.max_position_embeddings)
        self.kinds = rotary_parameters(config)
        self.width = {name: rotated_width(config, kind) for name, kind in self.kinds.items()}

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str = "") -> tuple[Tensor, Tensor]:
        """Map position ids (B × T) to cosines and sines (B × T × d), in the type of `x`."""
        positions_BT = position_ids.float()
        frequencies_BF = self._frequencies(positions_BT.amax(-1, keepdim=True) + 1, layer_type)
        angles_BTF = positions_BT[..., None] * frequencies_BF[:, None]
        angles_BTd = torch.cat([angles_BTF, angles_BTF], dim=-1)
        return angles_BTd.cos().to(x.dtype), angles_BTd.sin().to(x.dtype)

    def _frequencies(self, lengths_B1: Tensor, layer_type: str) -> Tensor:
        kind, width = self.kinds[layer_type], self.width[layer_type]
        exponents_F = torch.arange(0, width, 2, device=lengths_B1.device).float() / width
        plain_F: Tensor = 1.0 / kind["rope_theta"] ** exponents_F
        if kind["rope_type"] != "dynamic":
            return plain_F[None]
        factor, longest_B1 = kind["factor"], lengths_B1.clamp(min=self.trained)
        stretch_B1 = factor * longest_B1 / self.trained - (factor - 1)
        theta_B1 = kind["rope_theta"] * stretch_B1 ** (width / (width - 2))
        # Up to the trained length the angles stay the same to the last bit: no rounding of another power.
        stretched_BF: Tensor = 1.0 / theta_B1**exponents_F
        return torch.where(lengths_B1 > self.trained, stretched_BF, plain_F)


def rotary_parameters(config: PretrainedConfig) -> dict[str, dict[str, Any]]:
    """Return the rotary parameters by layer type; under "" where all layers have the same."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        return {"": dict(parameters)}
    used = dict.fromkeys(getattr(config, "layer_types", None) or parameters)
    return {name: dict(parameters[name]) for name in used if isinstance(parameters.get(name), dict)}


def rotated_width(config: PretrainedConfig, kind: dict[str, Any]) -> int:
    """Return how many components of a head are rotated."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head * kind.get("partial_rotary_factor", 1.0))

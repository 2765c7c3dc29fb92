"""Rotary positions stretched by each text's own length, whatever it is batched with.

This file travels in the folders of models that use it: torch and transformers only, no other imports.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel


def has_dynamic_ntk(config: PretrainedConfig) -> bool:
    """Whether the config asks for dynamic NTK, in any of its layer types."""
    return any(kind.get("rope_type") == "dynamic" for kind in kinds_of(config).values())


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position ids (B × T) from the mask: a row's largest one is its length − 1, padding included."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def rotary_places(backbone: PreTrainedModel) -> Iterator[tuple[nn.Module, str]]:
    """The modules that hold a rotary module, and under which name."""
    for owner in list(backbone.modules()):
        for name, module in owner.named_children():
            theirs = hasattr(module, "rope_type") and hasattr(module, "max_seq_len_cached")
            if theirs or isinstance(module, RowwiseRotary):
                yield owner, name


class RowwiseRotary(nn.Module):
    """Cosines and sines of rotary positions, a base frequency per row.

    A row of n tokens, where L is the trained length, α the factor and d the rotated width (NTK-aware scaling
    by its authors bloc97 and emozilla; the form of transformers and Nomic Embed):

        θ(n) = θ · (α · max(n, L) / L − (α − 1)) ^ (d / (d − 2))

    Branch-free, so that it exports to ONNX.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.trained = float(config.max_position_embeddings)
        self.kinds = kinds_of(config)
        self.width = {name: rotated_width(config, kind) for name, kind in self.kinds.items()}

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str = "") -> tuple[Tensor, Tensor]:
        """Position ids (B × T) to cosines and sines (B × T × d), in the type of `x`."""
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
        # Up to the trained length nothing changes, not even by the rounding of another power.
        stretched_BF: Tensor = 1.0 / theta_B1**exponents_F
        return torch.where(lengths_B1 > self.trained, stretched_BF, plain_F)


def kinds_of(config: PretrainedConfig) -> dict[str, dict[str, Any]]:
    """Rotary parameters by the type of the layers that there are; by "" where all have the same."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        return {"": dict(parameters)}
    used = dict.fromkeys(getattr(config, "layer_types", None) or parameters)
    return {name: dict(parameters[name]) for name in used if isinstance(parameters.get(name), dict)}


def rotated_width(config: PretrainedConfig, kind: dict[str, Any]) -> int:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head * kind.get("partial_rotary_factor", 1.0))

"""Dynamic NTK: rotary positions stretched by each text's own length, whatever it is batched with.

transformers' own takes the longest row of the batch, and remembers it: a text's vector then depends on its
neighbours and on what came before. Here every row is scaled by its own length. The config is written in
transformers' form, so that any other loader computes the same for a single text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from embedline.config.model import DynamicNTK
from embedline.errors import InputError

_WHERE = "model.dynamic_ntk"


def has_dynamic_ntk(config: PretrainedConfig) -> bool:
    """Whether the config asks for dynamic NTK, in any of its layer types."""
    return any(kind.get("rope_type") == "dynamic" for kind in _kinds(config).values())


def positions_of(attention_mask: Tensor) -> Tensor:
    """Position ids (B × T) from the mask: a row's largest one is its length − 1, padding included."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def apply_dynamic_ntk(backbone: PreTrainedModel, ntk: DynamicNTK | None = None) -> None:
    """Put `RowwiseRotary` in the place of the backbone's rotary module, and say so in its config.

    Args:
        ntk: factor and trained length; None: as the config of a loaded model says. Layers that attend within
            a window keep their rotary positions: they never see a longer distance.

    Raises:
        InputError: the backbone has no rotary positions, has scaled ones already, or computes them in
            another way.
    """
    config = backbone.config
    places = [
        (owner, name)
        for owner in backbone.modules()
        for name, module in owner.named_children()
        if isinstance(module, RowwiseRotary) or _is_rotary(module)
    ]
    if not places or not _kinds(config):
        raise InputError(f"{config.model_type} has no rotary positions to stretch.", where=_WHERE)
    if ntk is not None:
        _write(config, ntk)
    for owner, name in places:
        before = getattr(owner, name)
        rotary = RowwiseRotary(config).to(backbone.device)
        if not isinstance(before, RowwiseRotary):
            _require_same(before, rotary, config)
        setattr(owner, name, rotary)


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
        self.kinds = _kinds(config)
        self.width = {name: _rotated_width(config, kind) for name, kind in self.kinds.items()}

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


def _write(config: PretrainedConfig, ntk: DynamicNTK) -> None:
    kinds = _kinds(config)
    stretched = [name for name in kinds if name in ("", "full_attention")]
    if not stretched:
        raise InputError(
            f"every layer of this {config.model_type} attends within a window: no distance grows.",
            where=_WHERE,
        )
    for name in stretched:
        if kinds[name]["rope_type"] not in ("default", "dynamic"):
            raise InputError(
                f"its rotary positions are scaled already ({kinds[name]['rope_type']}).",
                where=_WHERE,
                fix="Leave it out; the model takes longer texts as it is.",
            )
        if _rotated_width(config, kinds[name]) < 4:
            raise InputError("a head of width 2 has one frequency, which is not stretched.", where=_WHERE)
    for name in stretched:
        kinds[name] |= {"rope_type": "dynamic", "factor": ntk.factor}
    config.rope_parameters = kinds.get("", {**config.rope_parameters, **kinds})
    config.max_position_embeddings = ntk.trained_length  # what "dynamic" measures a text against


def _kinds(config: PretrainedConfig) -> dict[str, dict[str, Any]]:
    """Rotary parameters by the type of the layers that there are; by "" where all have the same."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        return {"": dict(parameters)}
    used = dict.fromkeys(getattr(config, "layer_types", None) or parameters)
    return {name: dict(parameters[name]) for name in used if isinstance(parameters.get(name), dict)}


def _rotated_width(config: PretrainedConfig, kind: dict[str, Any]) -> int:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head * kind.get("partial_rotary_factor", 1.0))


def _is_rotary(module: nn.Module) -> bool:
    return hasattr(module, "rope_type") and hasattr(module, "max_seq_len_cached")


def _require_same(before: nn.Module, rotary: RowwiseRotary, config: PretrainedConfig) -> None:
    """A family that lays out its angles in another way is refused, not approximated."""
    positions_1T = torch.arange(min(8, config.max_position_embeddings), device=_device(before))[None]
    x = positions_1T.float()
    for name in rotary.kinds:
        layer: tuple[str, ...] = (name,) if name else ()
        try:
            pairs = zip(before(x, positions_1T, *layer), rotary(x, positions_1T, *layer), strict=True)
            same = all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)
        except (TypeError, AttributeError, RuntimeError, ValueError):
            same = False
        if not same:
            raise InputError(
                f"{config.model_type} computes its rotary positions in a way that Embedline does not know.",
                where=_WHERE,
            )


def _device(module: nn.Module) -> torch.device:
    return next(module.buffers()).device

"""Dynamic NTK: rotary positions stretched by each text's own length, independent of its batch.

transformers' implementation takes the longest row of the batch and keeps it for later batches: a text's
vector then depends on its neighbours and on earlier batches. Here every row is scaled by its own length, also
through other loaders: such a model carries its own class. The config is stored in transformers' form.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from embedline.config.model import DynamicNTK
from embedline.errors import InputError
from embedline.models.rotary import RowwiseRotary, rotary_modules, rotary_parameters, rotated_width

_WHERE = "model.dynamic_ntk"


def apply_dynamic_ntk(backbone: PreTrainedModel, ntk: DynamicNTK | None = None) -> None:
    """Replace the backbone's rotary modules with `RowwiseRotary`, and record dynamic NTK in its config.

    Args:
        ntk: factor and trained length; None: those in the config of a loaded model. Layers that attend within
            a window keep their rotary positions: their distances never grow.

    Raises:
        InputError: the backbone has no rotary positions, has scaled ones already, or computes them in
            another way.
    """
    config = backbone.config
    modules = list(rotary_modules(backbone))
    if not modules or not rotary_parameters(config):
        raise InputError(f"{config.model_type} has no rotary positions to stretch.", where=_WHERE)
    if ntk is not None:
        _write(config, ntk)
    for owner, name in modules:
        before = getattr(owner, name)
        rotary = RowwiseRotary(config).to(backbone.device)
        if not isinstance(before, RowwiseRotary):
            _require_same(before, rotary, config)
        setattr(owner, name, rotary)


def _write(config: PretrainedConfig, ntk: DynamicNTK) -> None:
    kinds = rotary_parameters(config)
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
                fix="Omit this setting; the model takes longer texts as it is.",
            )
        if rotated_width(config, kinds[name]) < 4:
            raise InputError("a head of width 2 has one frequency, which is not stretched.", where=_WHERE)
    for name in stretched:
        kinds[name] |= {"rope_type": "dynamic", "factor": ntk.factor}
    config.rope_parameters = kinds.get("", {**config.rope_parameters, **kinds})
    config.max_position_embeddings = ntk.trained_length  # the length from which "dynamic" stretches


def _require_same(before: nn.Module, rotary: RowwiseRotary, config: PretrainedConfig) -> None:
    """Refuse a family that lays out its angles in another way, instead of approximating it."""
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
                f"{config.model_type} has a form of rotary positions that Embedline does not support.",
                where=_WHERE,
            )


def _device(module: nn.Module) -> torch.device:
    return next(module.buffers()).device

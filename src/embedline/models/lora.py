"""Low-rank adapters (Hu et al. 2021) put into a backbone, and merged into its weights."""

from __future__ import annotations

import peft
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from embedline.config.model import LoraConfig
from embedline.errors import InputError


def with_lora(backbone: PreTrainedModel, config: LoraConfig) -> None:
    """Adapters in place, the only weights left trainable; the backbone keeps its class and its outputs.

    Raises:
        InputError: a target that no layer has, or that cannot be adapted.
    """
    names = [name for name, _ in backbone.named_modules()]
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
            kinds = sorted({name.rpartition(".")[2] for name in linear})
            raise InputError(
                f"{backbone.config.model_type} has no layer {target!r}.",
                where="model.lora.targets",
                fix=f"Its linear layers are {', '.join(kinds)}.",
            )
    asked = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.targets or "all-linear",
    )
    try:
        peft.inject_adapter_in_model(asked, backbone)
    except ValueError as error:
        raise InputError(
            f"cannot be adapted ({str(error).splitlines()[0]}).", where="model.lora.targets"
        ) from error
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad = "lora_" in name


def merge_lora(backbone: PreTrainedModel) -> None:
    """Adapters added into the weights and taken out: an ordinary model again, every weight trainable.

    A backbone without adapters is left alone.
    """
    adapted = [(name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]
    if not adapted:
        return
    for name, layer in reversed(adapted):  # experts that are one parameter have a layer within a layer
        layer.merge()
        backbone.set_submodule(name, layer.get_base_layer())
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config
    backbone.requires_grad_(True)

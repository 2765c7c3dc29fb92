"""Low-rank adapters (Hu et al. 2021): insert them into a backbone, merge them into its weights."""

from __future__ import annotations

import peft
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from embedline.config.model import LoraConfig
from embedline.errors import InputError, first_line


def add_lora(backbone: PreTrainedModel, config: LoraConfig) -> None:
    """Insert adapters in place, the only trainable weights; the backbone keeps its class and its outputs.

    Raises:
        InputError: a target that matches no layer, or a layer that cannot be adapted.
    """
    names = [name for name, _ in backbone.named_modules()]
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
            choices = sorted({name.rpartition(".")[2] for name in linear})
            raise InputError(
                f"{backbone.config.model_type} has no layer {target!r}.",
                where="model.lora.targets",
                fix=f"Its linear layers are {', '.join(choices)}.",
            )
    adapters = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.targets or "all-linear",
    )
    try:
        peft.inject_adapter_in_model(adapters, backbone)
    except ValueError as error:
        raise InputError(f"cannot be adapted ({first_line(error)}).", where="model.lora.targets") from error
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad = "lora_" in name


def merge_lora(backbone: PreTrainedModel) -> None:
    """Add the adapters to the weights and remove them; every weight is trainable afterwards.

    A backbone without adapters is left unchanged.
    """
    adapted = [(name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]
    if not adapted:
        return
    for name, layer in reversed(adapted):  # experts in one parameter nest adapters: inner ones first
        layer.merge()
        backbone.set_submodule(name, layer.get_base_layer())
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config
    backbone.requires_grad_(True)

"""The Dense modules of a sentence-transformers folder: their settings and weights, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from embedline.artifacts.durable import write_json
from embedline.errors import InputError, first_line
from embedline.models.embedder import DenseSpec
from embedline.models.pooling import ACTIVATIONS
from embedline.models.st_modules import StModule, module_config, read_modules

WEIGHTS = "model.safetensors"
# Where the module reads and writes; a Dense on token states is another kind of model.
_VECTOR = "sentence_embedding"
_TANH = "torch.nn.modules.activation.Tanh"  # sentence-transformers' default


def read_dense_layers(folder: Path, width: int) -> tuple[DenseSpec, ...]:
    """Read the settings of a folder's Dense modules in their order; empty when it has none.

    Args:
        width: of the pooled vector, which the first one takes.

    Raises:
        InputError: an activation that is not in ACTIVATIONS, a Dense on other than the pooled vector, or
            widths that do not fit each other.
    """
    layers: list[DenseSpec] = []
    for module in _dense_modules(folder):
        layer = _read_spec(folder, module)
        if layer.in_features != width:
            raise InputError(
                f"takes vectors of {layer.in_features} values, and the module before it gives {width}.",
                where=str(folder / module.path / "config.json"),
            )
        layers.append(layer)
        width = layer.out_features
    return tuple(layers)


def load_dense_weights(layers: nn.Sequential, folder: Path) -> None:
    """Load the weights of a folder's Dense modules into `layers`.

    Raises:
        InputError: the folder has another number of them, or weights that are missing, pickled, damaged or of
            other shapes.
    """
    modules = _dense_modules(folder)
    if len(modules) != len(layers):
        raise InputError(
            f"has {len(modules)} Dense modules, and its card has {len(layers)}.", where=str(folder)
        )
    require_dense_weights(folder)
    for layer, module in zip(layers, modules, strict=True):
        file = folder / module.path / WEIGHTS
        try:
            layer.load_state_dict(load_file(file))
        except (RuntimeError, SafetensorError) as error:
            raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(file)) from error


def require_dense_weights(folder: Path) -> None:
    """Refuse a Dense module without safetensors weights.

    Raises:
        InputError: naming the module's folder.
    """
    for module in _dense_modules(folder):
        if not (folder / module.path / WEIGHTS).is_file():
            raise InputError(
                f"has no {WEIGHTS}; pickled weights are not loaded.",
                where=str(folder / module.path),
                fix="Save the model with the newest sentence-transformers, which writes safetensors.",
            )


def write_dense_layer(layer: nn.Module, spec: DenseSpec, folder: Path) -> None:
    """Write one `DenseLayer` as sentence-transformers saves it."""
    config: dict[str, Any] = {
        "in_features": spec.in_features,
        "out_features": spec.out_features,
        "bias": spec.bias,
        "activation_function": spec.activation,
    }
    write_json(folder / "config.json", config | ({"use_residual": True} if spec.residual else {}))
    weights = {name: weight.contiguous() for name, weight in layer.state_dict().items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _dense_modules(folder: Path) -> list[StModule]:
    return [module for module in read_modules(folder) if module.kind == "Dense"]


def _read_spec(folder: Path, module: StModule) -> DenseSpec:
    file = str(folder / module.path / "config.json")
    config = module_config(folder, module)
    name = config.get("activation_function", _TANH)
    activation = next((full for full, kind in ACTIVATIONS.items() if name in (full, _short(kind))), None)
    if activation is None:
        raise InputError(
            f"has the activation function {name!r}, which is not loaded.",
            where=f"{file}: activation_function",
            fix=f"Embedline loads {', '.join(_short(kind) for kind in ACTIVATIONS.values())}.",
        )
    places = (config.get("module_input_name", _VECTOR), config.get("module_output_name") or _VECTOR)
    if places != (_VECTOR, _VECTOR):
        raise InputError(
            f"reads {places[0]} and writes {places[1]}; Embedline's Dense layers read and write the vector.",
            where=file,
        )
    try:
        return DenseSpec(
            int(config["in_features"]),
            int(config["out_features"]),
            bool(config.get("bias", True)),
            activation,
            bool(config.get("use_residual", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("lacks in_features or out_features as numbers.", where=file) from error


def _short(kind: type[nn.Module]) -> str:
    return f"torch.nn.{kind.__name__}"

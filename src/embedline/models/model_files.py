"""The files of a model folder: a folder that is no transformer encoder is named for what it is.

Only names and small JSON files are read: no torch, no transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedline.errors import InputError, first_line
from embedline.models.st_modules import MODULES, find_module, read_modules, transformer_folder

CARD = "embedline.json"
HEADS = "heads.safetensors"
ADAPTER = "adapter_config.json"
PICKLED = "pytorch_model.bin"
_STATIC_TYPES = {"model2vec", "StaticModel", "StaticEmbedding"}
_OTHER_WEIGHTS = {
    "pickled weights (pytorch_model.bin), which may run code": ("*.bin", "*.pt", "*.pth", "*.ckpt"),
    "TensorFlow or Flax weights": ("*.h5", "*.msgpack"),
    "an ONNX or OpenVINO graph": ("*.onnx", "onnx/*.onnx", "openvino/*.xml"),
    "GGUF weights": ("*.gguf",),
}
_CONVERT = (
    "Convert it once on a machine where you trust the file: "
    "AutoModel.from_pretrained(MODEL).save_pretrained(FOLDER), and AutoTokenizer likewise. On the hub many "
    "such models have a converted revision, refs/pr/1 or the like: name it as model.revision."
)


def require_files(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a folder that holds no transformer with safetensors weights, or model code that may not run.

    Raises:
        InputError: naming the folder or the file, what it holds instead, and what to do.
    """
    values = read_config(folder)
    inner = transformer_folder(folder)
    if not has_safetensors(inner):
        raise _without_safetensors(inner)
    values = values.get("backbone", values) if values.get("model_type") == "embedline" else values
    architecture = values.get("model_type")
    if values.get("auto_map") and not trust_remote_code and not _is_native(architecture):
        raise InputError(
            f"brings its own code for the architecture {architecture!r}, which runs only when it is trusted.",
            where=str(folder),
            fix="Read the code, then set model.trust_remote_code to true.",
        )


def has_safetensors(inner: Path) -> bool:
    """Return whether a folder has safetensors weights, heads excepted."""
    return any(path.name != HEADS for path in inner.glob("*.safetensors"))


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a model folder, also where it lies in the folder of its Transformer module.

    Raises:
        InputError: there is none, it is damaged, or this is no transformer with one vector a text.
    """
    _require_embedding_model(folder)
    inner = transformer_folder(folder)
    _require_no_adapter(inner)
    _require_transformer(folder)
    file = inner / "config.json"
    if not file.is_file():
        raise InputError("is not a model folder: it has no config.json.", where=str(inner))
    try:
        values = read_json(file)
    except ValueError as error:
        raise InputError(f"cannot be loaded ({first_line(error)}).", where=str(file)) from error
    if _STATIC_TYPES & {str(values.get("model_type")), *map(str, values.get("architectures") or [])}:
        raise _static(folder)
    return values


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty when there is no such file."""
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _require_embedding_model(folder: Path) -> None:
    kind = read_json(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise InputError(
            f"is a {kind} of sentence-transformers, not a model with one vector a text.",
            where=str(folder / "config_sentence_transformers.json"),
            fix="Give a SentenceTransformer model.",
        )


def _require_no_adapter(inner: Path) -> None:
    if (inner / ADAPTER).is_file():
        base = read_json(inner / ADAPTER).get("base_model_name_or_path", "its base model")
        raise InputError(
            f"holds an adapter (LoRA) for {base}, not a model.",
            where=str(inner / ADAPTER),
            fix="Merge it first: PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload()"
            ".save_pretrained(FOLDER), with the base's tokenizer beside it.",
        )


def _require_transformer(folder: Path) -> None:
    """Refuse a sentence-transformers folder without a transformer: static, bag of words, Dense only."""
    modules = read_modules(folder)
    if not modules or find_module(modules, "Transformer"):
        return
    kinds = [module.kind for module in modules]
    if "StaticEmbedding" in kinds:
        raise _static(folder)
    raise InputError(
        f"has no Transformer among its modules ({', '.join(kinds)}).",
        where=str(folder / MODULES),
        fix="Give a model whose first module is sentence-transformers' Transformer.",
    )


def _static(folder: Path) -> InputError:
    return InputError(
        "is a static model (StaticEmbedding, model2vec): a table of token vectors without a transformer.",
        where=str(folder),
        fix="Give a transformer model; the one that it was distilled from is named in its README.",
    )


def _without_safetensors(inner: Path) -> InputError:
    other = [kind for kind, names in _OTHER_WEIGHTS.items() if any(any(inner.glob(name)) for name in names)]
    found = f" It has {' and '.join(other)}." if other else ""
    return InputError(
        f"has no safetensors weights; pickled weights are not loaded.{found}", where=str(inner), fix=_CONVERT
    )


def _is_native(architecture: str | None) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return architecture in CONFIG_MAPPING

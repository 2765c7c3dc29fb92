"""The model folder: one place that SentenceTransformer, AutoModel and Embedline load, safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer

from embedline.artifacts.manifest import file_sha256
from embedline.config.model import ModelConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.pooling import POOLING
from embedline.models.prompts import PromptTable

CARD = "embedline.json"
_ST = "sentence_transformers.models"
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


def save_embedder(embedder: Embedder, folder: Path, *, lineage: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write weights, tokenizer, the sentence-transformers files and `embedline.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = embedder.spec
    embedder.backbone.save_pretrained(folder, safe_serialization=True)
    embedder.tokenizer.backend_tokenizer.no_truncation()  # else the file keeps the last call's length
    embedder.tokenizer.save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{_ST}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_ST}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_ST}.Normalize"},
    ]
    pooling = {"word_embedding_dimension": embedder.width, "include_prompt": True}
    pooling |= {key: name == spec.pooling for key, name in _MODES.items() if key.startswith("pooling_mode")}
    prompts = {"query": spec.prompts.prompt("query"), "document": spec.prompts.prompt("document")}
    prompts |= {name: entry.query for name, entry in spec.prompts.entries.items() if name != "default"}
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    _write(
        folder / "sentence_bert_config.json", {"max_seq_length": spec.document_length, "do_lower_case": False}
    )
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    _write(
        folder / CARD,
        {
            "format": 1,
            "pooling": spec.pooling,
            "heads": ["dense"],
            "width": embedder.width,
            "dims": list(spec.dims),
            "query_length": spec.query_length,
            "document_length": spec.document_length,
            "prompts": spec.prompts.as_json(),
            # Vectors of two models must not be mixed: an index records this and compares.
            "index_version": file_sha256(folder / "model.safetensors")[:16],
            "lineage": list(lineage),
        },
    )


def load_embedder(folder: Path, *, spec: EmbedderSpec | None = None) -> Embedder:
    """Load a model folder, ours or any sentence-transformers or transformers encoder.

    Args:
        spec: replaces what the folder says about lengths, prompts and dims.

    Raises:
        InputError: no such folder, no safetensors weights, weights that are damaged or of another
            architecture, or a way from states to vector that is not ours.
    """
    if not (folder / "config.json").is_file():
        raise InputError("is not a model folder: it has no config.json.", where=str(folder))
    if not any(folder.glob("*.safetensors")):
        raise InputError("has no safetensors weights; pickled weights are not loaded.", where=str(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        backbone, loading = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"cannot be loaded ({_first_line(error)}).", where=str(folder)) from error
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:  # transformers would go on with random ones
        raise InputError(f"lacks {len(missing)} weights, {missing[0]} first.", where=str(folder))
    return Embedder(backbone.float(), tokenizer, spec or read_spec(folder))


def read_spec(folder: Path) -> EmbedderSpec:
    """What a folder says: `embedline.json`, else the sentence-transformers files, else mean pooling."""
    card = _read(folder / CARD)
    if card:
        return EmbedderSpec(
            pooling=card["pooling"],
            query_length=card["query_length"],
            document_length=card["document_length"],
            dims=tuple(card["dims"]),
            prompts=PromptTable.from_json(card["prompts"]),
        )
    length = _read(folder / "sentence_bert_config.json").get("max_seq_length") or 512
    return EmbedderSpec(pooling=_outside_pooling(folder), query_length=length, document_length=length)


def _outside_pooling(folder: Path) -> str:
    """The pooling of a sentence-transformers folder; one that we would get wrong is an InputError."""
    modules: Any = _read(folder / "modules.json") or []
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    strange = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]
    if strange:
        raise InputError(f"has a module that Embedline does not know: {strange[0]}.", where=str(folder))
    pooling = _read(folder / "1_Pooling" / "config.json")
    if not pooling:
        return "mean"
    asked = pooling.get("pooling_mode") or [key for key, on in pooling.items() if key in _MODES and on]
    names = [_MODES.get(key, key) for key in ([asked] if isinstance(asked, str) else asked)]
    if len(names) != 1 or names[0] not in POOLING or not pooling.get("include_prompt", True):
        raise InputError(
            f"pools by {' and '.join(names) or 'nothing'}, with include_prompt "
            f"{pooling.get('include_prompt', True)}.",
            where=str(folder / "1_Pooling" / "config.json"),
            fix=f"Embedline knows {', '.join(POOLING)}, prompt included.",
        )
    return names[0]


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """What each step did to the model, oldest first; nothing for a model of others."""
    history: list[dict[str, Any]] = _read(folder / CARD).get("lineage", [])
    return history


def spec_from_config(model: ModelConfig, prompts: PromptTable) -> EmbedderSpec:
    """The spec that a run's configuration asks for."""
    return EmbedderSpec(
        pooling=model.pooling,
        latent=model.latent,
        mcls_every=model.mcls_every,
        heads=tuple(model.heads),
        multi_vector_width=model.multi_vector_width,
        hybrid=model.hybrid,
        query_length=model.query_length,
        document_length=model.document_length,
        dims=tuple(model.dims),  # in the order of the stages' matryoshka_weights
        prompts=prompts,
    )


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

"""Conversion of a model folder into the form that another library's loader of several heads needs."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from embedline.artifacts.durable import put_in_place, write_json
from embedline.errors import InputError
from embedline.export.client_cards import flag_card, multi_vector_card, sparse_card
from embedline.models import heads
from embedline.models.clients import LOADERS, Client, first_special, special_tokens, unrepresented
from embedline.models.embedder import Embedder
from embedline.models.folder import save_backbone, save_embedder
from embedline.models.st_files import write_st_settings

_MODULES = "sentence_transformers"
_TRANSFORMER = f"{_MODULES}.base.modules.transformer.Transformer"
_MASK = f"{_MODULES}.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


def convert(
    embedder: Embedder, client: Client, out: Path, *, lineage: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write `embedder` into the new folder `out`, in the form that `client` loads with the same scores.

    Args:
        lineage: what each step did to the model, oldest first.

    Raises:
        InputError: `out` exists, or the client's class cannot represent the model.

    Example:
        >>> convert(load_embedder(Path("model")), Client.flagembedding, Path("flag"))
        >>> BGEM3FlagModel("flag", pooling_method="mean", use_fp16=False)  # its README has the whole call
    """
    require_new(out)
    if part := unrepresented(embedder, client):
        raise InputError(
            f"{LOADERS[client]} does not give this model's scores: it has {part}.",
            where=f"--to {client}",
            fix="The folder itself loads in SentenceTransformer (dense head) and MLflow (all heads).",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        draft = Path(scratch) / "model"
        _WRITERS[client](embedder, draft, lineage)
        put_in_place(draft, out)


def require_new(out: Path) -> None:
    """Refuse a folder that holds files.

    Raises:
        InputError: naming it.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError("exists already.", where=str(out), fix="Name a new folder.")


def _write_flag(embedder: Embedder, folder: Path, lineage: Sequence[Mapping[str, Any]]) -> None:
    """Write the model's own folder and the two files of BGEM3FlagModel: tensors only, so no code is in them.

    It loads its heads from `.pt` files and has random ones when either is missing. A head that the model
    lacks is written as zeros, which score 0.
    """
    named = copy.copy(embedder)
    named.tokenizer = _with_named_specials(embedder.tokenizer)
    save_embedder(named, folder, lineage=lineage)
    files = {"sparse_linear.pt": ("lexical", "weigh", 1), "colbert_linear.pt": ("multi_vector", "project", 0)}
    for file, (head, name, out) in files.items():
        if head in embedder.heads:
            state = getattr(embedder.heads[head], name).state_dict()
        else:
            empty = nn.Linear(embedder.state_width, out or embedder.state_width)
            state = {key: torch.zeros_like(value) for key, value in empty.state_dict().items()}
        torch.save({key: value.detach().float().cpu().clone() for key, value in state.items()}, folder / file)
    (folder / "README.md").write_text(flag_card(named), encoding="utf-8")


def _with_named_specials(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy in which cls, eos, pad and unk name every special token of a text.

    BGEM3FlagModel gives no weight to these four, and BERT's [SEP] is none of them. The ids stay the same.
    """
    named = copy.deepcopy(tokenizer)
    own = special_tokens(tokenizer)
    named.cls_token = own[0]
    named.eos_token = own[-1] if len(own) > 1 else tokenizer.eos_token or own[0]
    named.unk_token = tokenizer.unk_token or tokenizer.pad_token
    return named


def _write_sparse(embedder: Embedder, folder: Path, lineage: Sequence[Mapping[str, Any]]) -> None:
    """Write a SparseEncoder: the transformer, and the lexical head in a module whose code is copied."""
    save_backbone(embedder, folder)
    source = Path(str(heads.__file__))
    for file in (source, source.with_name("lexical_pooling.py")):
        shutil.copyfile(file, folder / file.name)
    modules = [_TRANSFORMER, "lexical_pooling.LexicalPooling"]
    write_st_settings(embedder.spec, folder, modules, similarity="dot", model_type="SparseEncoder")
    settings = {
        "width": embedder.state_width,
        "vocabulary": len(embedder.tokenizer),
        "special_ids": list(embedder.tokenizer.all_special_ids),
    }
    weights = {f"head.{name}": weight for name, weight in embedder.heads["lexical"].state_dict().items()}
    _write_module(folder / "1_LexicalPooling", settings, weights)
    (folder / "README.md").write_text(sparse_card(embedder), encoding="utf-8")


def _write_multi_vector(embedder: Embedder, folder: Path, lineage: Sequence[Mapping[str, Any]]) -> None:
    """Write a MultiVectorEncoder: the transformer, the projection, its length 1, and what is not compared."""
    save_backbone(embedder, folder)
    base = f"{_MODULES}.base.modules"
    modules = [_TRANSFORMER, f"{base}.dense.Dense", f"{base}.normalize.Normalize", _MASK]
    write_st_settings(
        embedder.spec, folder, modules, similarity="meanmaxsim", model_type="MultiVectorEncoder"
    )
    project: Any = embedder.heads["multi_vector"].project
    dense = {
        "in_features": project.in_features,
        "out_features": project.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    weights = {f"linear.{name}": weight for name, weight in project.state_dict().items()}
    _write_module(folder / "1_Dense", dense | _TOKENS, weights)
    _write_module(folder / "2_Normalize", _TOKENS)
    first = first_special(embedder.tokenizer)
    skipped = {"skiplist_words": [first] if first else [], "skiplist_tasks": ["query", "document"]}
    _write_module(folder / "3_MultiVectorMask", skipped | {"keep_only_token_ids": None})
    (folder / "README.md").write_text(multi_vector_card(embedder), encoding="utf-8")


def _write_module(
    folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None
) -> None:
    folder.mkdir()
    write_json(folder / "config.json", settings)
    if weights:
        tensors = {name: weight.contiguous() for name, weight in weights.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


_WRITERS: dict[Client, Callable[[Embedder, Path, Sequence[Mapping[str, Any]]], None]] = {
    Client.flagembedding: _write_flag,
    Client.sparse_encoder: _write_sparse,
    Client.multi_vector_encoder: _write_multi_vector,
}

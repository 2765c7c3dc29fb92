"""The same architecture with random weights: what training is measured against."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder


def untrained_twin(folder: Path, seed: int = 0) -> Embedder:
    """A model of `folder`'s architecture and tokenizer with fresh weights."""
    import torch
    from transformers import AutoModel, PreTrainedModel

    from embedline.models.embedder import Embedder
    from embedline.models.folder import load_embedder

    trained = load_embedder(folder)
    torch.manual_seed(seed)
    config = trained.backbone.config
    backbone: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa", dtype=torch.float32
    )
    return Embedder(backbone, trained.tokenizer, replace(trained.spec))


def untrained_digest(folder: Path) -> str:
    """What an untrained twin depends on: everything about `folder` but its weights."""
    digest = hashlib.sha256(b"untrained")
    for name in ("config.json", "tokenizer.json"):
        path = folder / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    card = folder / "embedline.json"
    about = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    kept = {key: value for key, value in about.items() if key not in ("index_version", "lineage")}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()

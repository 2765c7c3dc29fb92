"""The untrained twin of a model: the same architecture with random weights, as a baseline of training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder


def untrained_twin(
    folder: Path, seed: int = 0, *, attention: str = "auto", trust_remote_code: bool = False
) -> Embedder:
    """Build a model with the architecture and tokenizer of `folder` and random weights."""
    import torch

    from embedline.models.embedder import Embedder
    from embedline.models.folder import load_embedder
    from embedline.models.rope import apply_dynamic_ntk
    from embedline.models.rotary import has_dynamic_ntk

    trained = load_embedder(folder, attention=attention, trust_remote_code=trust_remote_code)
    torch.manual_seed(seed)
    kind: Any = type(trained.backbone)
    backbone = kind._from_config(
        trained.backbone.config,
        attn_implementation=trained.backbone.config._attn_implementation,
        dtype=torch.float32,
    )
    if has_dynamic_ntk(backbone.config):
        apply_dynamic_ntk(backbone)
    return Embedder(backbone, trained.tokenizer, replace(trained.spec))


def untrained_digest(folder: Path) -> str:
    """Hash what an untrained twin depends on: everything in `folder` but its weights."""
    digest = hashlib.sha256(b"untrained")
    names = ["config.json", "tokenizer.json", "modules.json"]
    for path in [*(folder / name for name in names), *sorted(folder.glob("*/config.json"))]:
        digest.update(path.read_bytes() if path.is_file() else b"")
    card = folder / "embedline.json"
    about = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    kept = {key: value for key, value in about.items() if key not in ("index_version", "lineage")}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()

"""`embedline.json`: what a model folder records beside its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedline.artifacts.durable import write_json
from embedline.artifacts.manifest import file_sha256
from embedline.config.model import HybridWeights, LatentConfig
from embedline.models.embedder import DenseSpec, Embedder, EmbedderSpec
from embedline.models.model_files import CARD, read_json
from embedline.models.prompts import PromptTable
from embedline.models.st_modules import transformer_folder


def write_card(embedder: Embedder, folder: Path, lineage: Sequence[Mapping[str, Any]]) -> None:
    """Write `embedline.json` into a folder that holds the weights already: its index version digests them."""
    spec = embedder.spec
    card = {
        "format": 1,
        "pooling": spec.pooling,
        "latent": spec.latent.model_dump(),
        "mcls_every": spec.mcls_every,
        "dense_layers": [layer._asdict() for layer in spec.dense_layers],
        "layer_norm": spec.layer_norm,
        "heads": list(spec.heads),
        "multi_vector_width": spec.multi_vector_width,
        "hybrid": spec.hybrid.model_dump(),
        "width": embedder.width,
        "dims": list(spec.dims),
        "query_length": spec.query_length,
        "document_length": spec.document_length,
        "prompts": spec.prompts.as_json(),
        "index_version": index_version(folder, spec),
        "lineage": list(lineage),
    }
    write_json(folder / CARD, card)


def read_spec(folder: Path) -> EmbedderSpec | None:
    """Read the spec of a folder that Embedline saved; None for any other folder."""
    card = read_json(folder / CARD)
    if not card:
        return None
    spec = EmbedderSpec()
    return replace(
        spec,
        pooling=card["pooling"],
        latent=LatentConfig(**card.get("latent", {})),
        mcls_every=card.get("mcls_every", spec.mcls_every),
        dense_layers=tuple(DenseSpec(**layer) for layer in card.get("dense_layers", [])),
        layer_norm=card.get("layer_norm", False),
        heads=tuple(card["heads"]),
        multi_vector_width=card.get("multi_vector_width"),
        hybrid=HybridWeights(**card.get("hybrid", {})),
        query_length=card["query_length"],
        document_length=card["document_length"],
        dims=tuple(card["dims"]),
        prompts=PromptTable.from_json(card["prompts"]),
    )


def read_lineage(folder: Path) -> list[dict[str, Any]]:
    """Read what each step did to the model, oldest first; empty for a third-party model."""
    history: list[dict[str, Any]] = read_json(folder / CARD).get("lineage", [])
    return history


def index_version(folder: Path, spec: EmbedderSpec, causal: bool | None = None) -> str:
    """Digest weights, pooling and Dense layers: an index records it, and models never mix.

    Args:
        folder: ours, or a third-party one: its heads are .pt files, its weights may lie a folder below.
        causal: the mask that the user states for a third-party folder.
    """
    inner = transformer_folder(folder)
    weights = [*sorted(inner.glob("*.safetensors")), *sorted(folder.glob("*_Dense/*.safetensors"))]
    weights += sorted(folder.glob("*_linear.pt")) if "lexical" in spec.heads else []
    files = [[path.relative_to(folder).as_posix(), file_sha256(path)] for path in weights]
    pools: list[Any] = [spec.pooling, spec.mcls_every if spec.pooling == "mcls" else None, spec.layer_norm]
    pools += [list(layer) for layer in spec.dense_layers]
    pools += [] if causal is None else [{"causal": causal}]
    return hashlib.sha256(json.dumps([files, pools]).encode()).hexdigest()[:16]

"""An encoder for any model folder, for `embed`, `index` and `search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedline.artifacts.manifest import file_sha256
from embedline.cli.find_model import find_model
from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.models.head_vectors import HeadVectors, encode_heads
from embedline.models.prompts import Side
from embedline.models.stated import NOTHING, Stated, require_unstated
from embedline.retrieval.about import VectorSource
from embedline.retrieval.blocks import Block
from embedline.vectors.unit import unit

DENSE = ("dense",)


@dataclass(frozen=True)
class ModelOptions:
    """Where a command finds models, and what it states about them.

    Args:
        work: folder of runs and of downloaded models.
        uri: of the MLflow server; empty for the default one.
        trust_remote_code: run the code in the model's folder.
        stated: pooling and mask of a third-party folder.
    """

    work: Path
    uri: str = ""
    trust_remote_code: bool = False
    stated: Stated = NOTHING

    def open(self, model: str) -> Encoder:
        """Load the model that `find_model` finds."""
        return Encoder(find_model(model, self.work, self.uri), model, self.trust_remote_code, self.stated)


class Encoder:
    """A model that encodes queries and documents with its own prompts and lengths; ONNX needs no torch.

    Args:
        folder: of the model.
        name: as the user named it, for the description of an index.
    """

    def __init__(self, folder: Path, name: str, trust_remote_code: bool, stated: Stated) -> None:
        self.folder = folder
        self.name = name if name.startswith("models:") else str(folder.absolute())
        self._model: Any
        self._spec: Any
        if (folder / "model.onnx").is_file():
            from embedline.export.runtime import OnnxEmbedder

            require_unstated(folder, stated)
            self._model = self._spec = OnnxEmbedder(folder)
            version = self._model.index_version or file_sha256(folder / "model.onnx")[:16]
            self.index_version: str = version
            self._token_of, self.vocabulary = self._model.token, self._model.vocabulary
        else:
            from embedline.models.card import index_version
            from embedline.models.device import best_device
            from embedline.models.folder import load_embedder
            from embedline.models.machine import prepare

            prepare(RuntimeConfig())
            loaded = load_embedder(folder, trust_remote_code=trust_remote_code, stated=stated)
            self._model = loaded.to(best_device())
            self._spec = self._model.spec
            self.index_version = index_version(folder, self._spec, stated.causal)
            tokenizer = self._model.tokenizer
            self._token_of, self.vocabulary = tokenizer.convert_ids_to_tokens, len(tokenizer)

    @property
    def heads(self) -> tuple[str, ...]:
        """The model's heads, dense among them."""
        return tuple(self._spec.heads)

    @property
    def width(self) -> int:
        """Width of the dense vectors."""
        return int(self._model.width)

    @property
    def dims(self) -> tuple[int, ...]:
        """The Matryoshka dims that the model states, the full width not included."""
        return tuple(self._spec.dims)

    @property
    def source(self) -> VectorSource:
        """What the vectors of documents depend on."""
        prompt, length = self._side("document")
        return VectorSource(self.name, self.index_version, prompt, length, self.heads)

    def token(self, term: int) -> str:
        """Return the token of a term of the lexical head."""
        return str(self._token_of(term))

    def encode(self, texts: Sequence[str], side: Side, dim: int | None = None) -> np.ndarray:
        """Encode texts of one side (query or document) as unit vectors (N × D, or N × dim).

        Raises:
            InputError: the model's vectors are shorter than `dim`.
        """
        self.require_width(dim)
        prompt, length = self._side(side)
        vectors: np.ndarray = self._model.encode(texts, prompt=prompt, max_length=length)
        return vectors if dim is None else unit(vectors, dim)

    def encode_heads(self, texts: Sequence[str], side: Side, heads: Sequence[str]) -> HeadVectors:
        """Encode texts of one side with the heads named; dense is always among the results."""
        if tuple(heads) == DENSE or self.heads == DENSE:
            return HeadVectors(self.encode(texts, side))
        prompt, length = self._side(side)
        if hasattr(self._model, "encode_heads"):
            found: HeadVectors = self._model.encode_heads(texts, prompt=prompt, max_length=length)
        else:
            found = encode_heads(self._model, texts, prompt=prompt, max_length=length)
        return HeadVectors(
            found.dense,
            found.lexical if "lexical" in heads else None,
            found.tokens if "multi_vector" in heads else None,
        )

    def block(self, texts: Sequence[str], heads: Sequence[str]) -> Block:
        """Encode documents with the heads named, as flat arrays."""
        return Block.of(self.encode_heads(texts, "document", heads), self.vocabulary)

    def require_width(self, dim: int | None) -> None:
        """Refuse more values than a vector has.

        Raises:
            InputError: naming both.
        """
        if dim is not None and dim > self.width:
            raise InputError(f"the model's vectors have {self.width} values.", where=f"--dim {dim}")

    def _side(self, side: Side) -> tuple[str, int]:
        """Return prompt and length of one side."""
        length = self._spec.query_length if side == "query" else self._spec.document_length
        return self._spec.prompts.prompt(side), int(length)

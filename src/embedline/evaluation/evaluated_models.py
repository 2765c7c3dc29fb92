"""Models under evaluation: an encoder with its prompts, lengths and dims, and the vectors it made so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from embedline.artifacts.scores import TORCH, ScoreRow
from embedline.evaluation.untrained import untrained_twin
from embedline.models.head_vectors import HeadVectors, encode_heads
from embedline.models.prompts import PromptTable
from embedline.models.stated import NOTHING, Stated
from embedline.retrieval.fusion import Fusion, read_fusion
from embedline.vectors.unit import unit

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder


class Encoder(Protocol):
    """An object that turns texts into vectors (N × D): an Embedder, an ONNX runtime."""

    def encode(
        self, texts: Sequence[str], *, prompt: str, max_length: int, batch_tokens: int
    ) -> np.ndarray: ...


@dataclass
class EvaluatedModel:
    """A model under evaluation: its encoder, and how its inputs are to be made.

    Args:
        model, digest, runtime: as in its score rows.
        dims: widths to score, from one encoding; the full width is added.
        heads: that the model has; those beside dense need an encoder with `encode_heads`.
        hybrid: weight of each head in the sum of their scores.
        fusion: of its heads and BM25; None where hybrid is the sum of the heads.
    """

    model: str
    digest: str
    encoder: Encoder
    prompts: PromptTable = field(default_factory=PromptTable)
    query_length: int = 64
    document_length: int = 256
    dims: tuple[int, ...] = ()
    runtime: str = TORCH
    batch_tokens: int = 8192
    heads: tuple[str, ...] = ("dense",)
    hybrid: Mapping[str, float] = field(default_factory=dict)
    fusion: Fusion | None = None
    token_width: int = 0
    _known: dict[tuple[str, int], tuple[dict[str, int], list[np.ndarray]]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The full width; 0 before anything was encoded."""
        return next((blocks[0].shape[1] for _, blocks in self._known.values() if blocks), 0)

    def sample(self, count: int) -> np.ndarray:
        """Return vectors of at most `count` texts (N × D), evenly spaced among those encoded so far.

        They share one prompt and one length, those that most texts were encoded with. No two are of the same
        text.
        """
        places, blocks = max(self._known.values(), key=lambda known: len(known[0]), default=({}, []))
        if not places:
            return np.zeros((0, 0), np.float32)
        chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
        vectors: np.ndarray = np.concatenate(blocks)[chosen]
        return vectors

    def row(
        self,
        set_: str,
        kind: str,
        language: str,
        *,
        revision: str,
        prompt: str,
        dim: int = 0,
        ignore_identical_ids: bool = False,
    ) -> ScoreRow:
        """Return a score row of this model on a set, without the numbers of a metric."""
        return ScoreRow(
            model=self.model,
            digest=self.digest,
            set=set_,
            kind=kind,
            language=language,
            revision=revision,
            runtime=self.runtime,
            prompt=prompt,
            dim=dim,
            ignore_identical_ids=ignore_identical_ids,
        )

    def vectors(self, texts: Sequence[str], prompt: str, max_length: int) -> np.ndarray:
        """Return vectors of length one (N × D); a text encoded before at this length is not encoded again."""
        places, blocks = self._known.setdefault((prompt, max_length), ({}, []))
        new = [text for text in dict.fromkeys(texts) if text not in places]
        if new:
            how: Any = {"prompt": prompt, "max_length": max_length, "batch_tokens": self.batch_tokens}
            self._keep(new, self.encoder.encode(new, **how), prompt, max_length)
        blocks[:] = [np.concatenate(blocks)] if len(blocks) > 1 else blocks
        return blocks[0][[places[text] for text in texts]] if blocks else np.zeros((0, 0), np.float32)

    def head_vectors(self, texts: Sequence[str], prompt: str, max_length: int) -> HeadVectors:
        """Return the outputs of all heads for `texts`; only the dense vectors are kept for `vectors`."""
        encoder: Any = self.encoder
        vectors: HeadVectors = encoder.encode_heads(
            texts, prompt=prompt, max_length=max_length, batch_tokens=self.batch_tokens
        )
        self._keep(texts, vectors.dense, prompt, max_length)
        self.token_width = max((len(tokens[0]) for tokens in vectors.tokens or [] if len(tokens)), default=0)
        return vectors

    def token_counts(self, texts: Sequence[str], prompt: str, max_length: int) -> list[int]:
        """Count the tokens of each text, prompt and special ones included."""
        encoder: Any = self.encoder
        counts: list[int] = []
        for at in range(0, len(texts), 4096):
            rows = encoder.tokenize(texts[at : at + 4096], prompt=prompt, max_length=max_length)
            counts += [len(row) for row in rows]
        return counts

    def _keep(self, texts: Sequence[str], vectors: np.ndarray, prompt: str, max_length: int) -> None:
        places, blocks = self._known.setdefault((prompt, max_length), ({}, []))
        fresh = {text: i for i, text in enumerate(texts) if text not in places}
        if fresh:
            places.update(zip(fresh, range(len(places), len(places) + len(fresh)), strict=True))
            blocks.append(unit(np.asarray(vectors, np.float32)[list(fresh.values())]))


@dataclass(frozen=True)
class TorchEncoder:
    """An Embedder that encodes in fp32 or, as it was trained, in bf16 autocast."""

    embedder: Embedder
    bf16: bool = False

    def encode(self, texts: Sequence[str], *, prompt: str, max_length: int, batch_tokens: int) -> np.ndarray:
        return self.embedder.encode(
            texts, prompt=prompt, max_length=max_length, batch_tokens=batch_tokens, bf16=self.bf16
        )

    def encode_heads(
        self, texts: Sequence[str], *, prompt: str, max_length: int, batch_tokens: int
    ) -> HeadVectors:
        how: Any = {"prompt": prompt, "max_length": max_length, "batch_tokens": batch_tokens}
        return encode_heads(self.embedder, texts, bf16=self.bf16, **how)

    def tokenize(self, texts: Sequence[str], *, prompt: str, max_length: int) -> list[list[int]]:
        return self.embedder.tokenize(texts, prompt=prompt, max_length=max_length)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, without special ones."""
        return len(self.embedder.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_torch_model(
    model: str,
    digest: str,
    folder: Path,
    *,
    bf16: bool = False,
    untrained: bool = False,
    prompts: PromptTable | None = None,
    batch_tokens: int = 8192,
    attention: str = "auto",
    trust_remote_code: bool = False,
    stated: Stated = NOTHING,
    as_base: bool = False,
    fusion: Fusion | None = None,
) -> EvaluatedModel:
    """Load a model folder, Embedline's or a third-party one; on the GPU where there is one.

    >>> model = load_torch_model("mine", "digest", Path("runs/latest/model"))
    >>> scores = score_model(model, read_sets(Path("evaluation")))
    >>> {row.set: row.value for row in scores.rows if row.main}

    Args:
        untrained: load the architecture with random weights instead.
        prompts: for a third-party model, whose folder names no prompts; None takes the model's own.
        attention, trust_remote_code, stated, as_base: as for `load_embedder`.
        fusion: of a folder that has none.
    """
    from embedline.models.device import best_device
    from embedline.models.folder import load_embedder

    if untrained:
        embedder = untrained_twin(folder, attention=attention, trust_remote_code=trust_remote_code)
    else:
        embedder = load_embedder(
            folder,
            attention=attention,
            trust_remote_code=trust_remote_code,
            stated=stated,
            as_base=as_base,
        )
    embedder.to(best_device())
    spec = embedder.spec
    return EvaluatedModel(
        model,
        digest,
        TorchEncoder(embedder, bf16),
        prompts=spec.prompts if prompts is None else prompts,
        query_length=spec.query_length,
        document_length=spec.document_length,
        dims=spec.dims,
        batch_tokens=batch_tokens,
        heads=spec.heads,
        hybrid=spec.hybrid.model_dump(),
        fusion=read_fusion(folder) or fusion,
    )


def load_onnx_model(
    model: str,
    digest: str,
    folder: Path,
    runtime: str,
    *,
    batch_tokens: int = 8192,
    threads: int | None = None,
    fusion: Fusion | None = None,
) -> EvaluatedModel:
    """Load an exported model, which is scored at full width only.

    Args:
        runtime: onnx-fp32 or onnx-int8.
        fusion: of a folder that has none.
    """
    from embedline.export.runtime import OnnxEmbedder

    exported = OnnxEmbedder(folder, "int8" if runtime == "onnx-int8" else "fp32", threads=threads)
    return EvaluatedModel(
        model,
        digest,
        exported,
        prompts=exported.prompts,
        query_length=exported.query_length,
        document_length=exported.document_length,
        runtime=runtime,
        batch_tokens=batch_tokens,
        heads=exported.heads,
        hybrid=exported.hybrid,
        fusion=read_fusion(folder) or fusion,
    )

"""From a folder to a model under evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedline.evaluation.local import Subject
from embedline.models.device import best_device
from embedline.models.embedder import Embedder
from embedline.models.head_vectors import HeadVectors, encode_heads
from embedline.models.prompts import PromptTable


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
        how = {"prompt": prompt, "max_length": max_length, "batch_tokens": batch_tokens, "bf16": self.bf16}
        return encode_heads(self.embedder, texts, **how)  # type: ignore[arg-type]

    def tokenize(self, texts: Sequence[str], *, prompt: str, max_length: int) -> list[list[int]]:
        return self.embedder.tokenize(texts, prompt=prompt, max_length=max_length)

    def count_tokens(self, text: str) -> int:
        """Of a text, without special tokens."""
        return len(self.embedder.tokenizer(text, add_special_tokens=False)["input_ids"])


def torch_subject(
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
) -> Subject:
    """A model folder, ours or an outside one; on the GPU where there is one.

    Args:
        untrained: its architecture with random weights instead.
        prompts: for an outside model, which says nothing about prompts; its own when None.
        attention, trust_remote_code: as for `load_embedder`.
    """
    from embedline.evaluation.untrained import untrained_twin
    from embedline.models.folder import load_embedder

    if untrained:
        embedder = untrained_twin(folder, attention=attention, trust_remote_code=trust_remote_code)
    else:
        embedder = load_embedder(folder, attention=attention, trust_remote_code=trust_remote_code)
    embedder.to(best_device())
    spec = embedder.spec
    return Subject(
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
    )


def onnx_subject(
    model: str,
    digest: str,
    folder: Path,
    runtime: str,
    *,
    batch_tokens: int = 8192,
    threads: int | None = None,
) -> Subject:
    """An exported model; `runtime` is onnx-fp32 or onnx-int8. Scored at full width only."""
    from embedline.export.runtime import OnnxEmbedder

    exported = OnnxEmbedder(folder, "int8" if runtime == "onnx-int8" else "fp32", threads=threads)
    return Subject(
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
    )

"""Sections about the model: backbone, tokenizer, pooling, prompts, pruning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from embedline.config.base import Section


class Prompt(Section):
    """The words put before a text, by side. `Instruct: …\\nQuery: ` and `search_query: ` are entries."""

    query: str = ""
    document: str = ""


class ModelConfig(Section):
    """The encoder: an existing one (`base`), or one made from scratch (`architecture`)."""

    base: str | None = Field(None, description="folder, hub id, or package:NAME; none: from scratch")
    revision: str | None = Field(None, description="revision of a hub model; pinned by preflight when empty")
    architecture: str = Field("modernbert", description="transformers model_type for training from scratch")
    settings: dict[str, Any] = Field(
        {}, description="values of the architecture's own config (hidden_size, num_hidden_layers, …)"
    )
    vocabulary: int = Field(16_384, ge=64, multiple_of=64, description="tokenizer size when from scratch")
    lowercase: bool = Field(True, description="the tokenizer made from scratch folds case and ё to е")
    pooling: Literal["mean", "cls", "last"] = "mean"
    query_length: int = Field(64, ge=8, description="tokens of a query (short side)")
    document_length: int = Field(256, ge=8, description="tokens of a document")
    dims: list[int] = Field([], description="Matryoshka dims; the full width is always one of them")


class TeacherConfig(Section):
    """A pretrained embedding model that judges data (consistency filter)."""

    model: str = Field(description="folder, hub id, or package:NAME")
    revision: str | None = None
    languages: list[str] = Field(["en"], description="records in other languages are not judged by it")


class PruneConfig(Section):
    """Which layers go, when, and how the model heals."""

    when: Literal["never", "before", "after"] = "never"
    drop_share: float = Field(0.25, gt=0, lt=1, description="share of layers dropped (Giga: 0.25)")
    method: Literal["even", "last", "angular"] = Field(
        "angular", description="even spacing, the last layers, or the block that changes states least"
    )
    heal_steps: int = Field(100, ge=0, description="distillation steps from the unpruned model")
    heal_batch: int = Field(128, ge=2)
    heal_learning_rate: float = Field(1e-4, gt=0)

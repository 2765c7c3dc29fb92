"""Sections about the model: backbone, tokenizer, pooling, prompts, pruning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section


class Prompt(Section):
    """The words put before a text: by side, or one instruction that stands before queries.

    `{query: "search_query: ", document: "search_document: "}` are Nomic Embed's prefixes;
    `{instruct: "Given a question, find the answer"}` is GigaEmbeddings' `Instruct: …\\nQuery: `. A symmetric
    task has no documents: both of its sides get the query's words.
    """

    query: str = Field("", description="words before a query")
    document: str = Field("", description="words before a document")
    instruct: str = Field("", description="description of the task; stands for query: Instruct: …\\nQuery: ")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Prompt:
        if self.instruct and (self.query or self.document):
            raise ValueError("instruct stands alone: queries get it, documents get nothing")
        return self

    def words(self, *, of_query: bool) -> str:
        """What precedes a query, or a document."""
        if self.instruct:
            return f"Instruct: {self.instruct}\nQuery: " if of_query else ""
        return self.query if of_query else self.document


class LatentConfig(Section):
    """Latent attention pooling (NV-Embed: 512 latents, 8 heads)."""

    latents: int = Field(512, ge=1, description="rows of the trained array that gives keys and values")
    heads: int = Field(8, ge=1, description="attention heads; the width is a multiple of them")


class DynamicNTK(Section):
    """Rotary positions stretched beyond what the model was trained on, by each text's own length."""

    factor: float = Field(2.0, ge=1, description="Nomic Embed: 2")
    trained_length: int = Field(2048, ge=16, description="tokens up to which nothing changes")


class LoraConfig(Section):
    """Low-rank adapters instead of full training (Hu et al. 2021); merged when the model is saved."""

    rank: int = Field(16, ge=1, description="of the adapters")
    alpha: int = Field(32, ge=1, description="scale of the adapters; they count alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on the adapters' inputs while training")
    targets: list[str] = Field([], description="names of the layers adapted; every linear one when empty")


class HybridWeights(Section):
    """The weights of the heads in a hybrid score."""

    dense: float = Field(1.0, ge=0, description="of the dense score")
    lexical: float = Field(0.3, ge=0, description="BGE-M3: 0.3")
    multi_vector: float = Field(1.0, ge=0, description="of the multi-vector score")


Head = Literal["dense", "lexical", "multi_vector"]


class ModelConfig(Section):
    """The encoder: an existing one (`base`), or one made from scratch (`architecture`)."""

    base: str | None = Field(None, description="folder, hub id, or package:NAME; none: from scratch")
    revision: str | None = Field(None, description="revision of a hub model; pinned by preflight when empty")
    architecture: str = Field("modernbert", description="transformers model_type for training from scratch")
    settings: dict[str, Any] = Field(
        {},
        description="values of the architecture's own config (hidden_size, num_hidden_layers, …); beside a "
        "base only what `embedline plan` counts with until the base is at hand",
    )
    vocabulary: int = Field(16_384, ge=64, multiple_of=64, description="tokenizer size when from scratch")
    lowercase: bool = Field(True, description="the tokenizer made from scratch folds case and ё to е")
    trust_remote_code: bool = Field(False, description="run the model code that `base` carries")
    pooling: Literal["mean", "cls", "last", "latent", "mcls"] = Field(
        "mean",
        description="how token states become one vector; mcls: the mean of CLS tokens, mcls_every apart",
    )
    latent: LatentConfig = LatentConfig()
    mcls_every: int = Field(
        256, ge=8, description="pooling mcls: a CLS token before so many tokens (M3: 256)"
    )
    layer_norm: bool = Field(
        False,
        description="layer norm without parameters on the pooled vector, before Matryoshka cuts it (Nomic)",
    )
    heads: list[Head] = Field(
        ["dense"], description="what one forward pass gives; dense is always among them"
    )
    multi_vector_width: int | None = Field(
        None, ge=8, description="of a token vector of the multi-vector head; the model's width when empty"
    )
    hybrid: HybridWeights = HybridWeights()
    positions: int | None = Field(
        None, ge=16, description="learned positions are extended to so many tokens by tiling (XLM-R: 8192)"
    )
    dynamic_ntk: DynamicNTK | None = None
    lora: LoraConfig | None = None
    query_length: int = Field(64, ge=8, description="tokens of a query (short side)")
    document_length: int = Field(256, ge=8, description="tokens of a document")
    dims: list[int] = Field([], description="Matryoshka dims; the full width is always one of them")


def row_tokens(tokens: int, pooling: str, mcls_every: int) -> int:
    """Tokens of the row that a text of `tokens` becomes: MCLS puts more in."""
    return tokens + ((tokens - 1) // mcls_every if pooling == "mcls" else 0)


class TeacherConfig(Section):
    """A pretrained embedding model that judges data (consistency filter) and may teach (distillation)."""

    model: str = Field(description="folder, hub id, or package:NAME")
    revision: str | None = Field(None, description="revision of a hub model; pinned by preflight when empty")
    languages: list[str] = Field(["en"], description="texts in others are neither judged nor taught by it")
    filter: bool = Field(True, description="clean drops the pairs that it does not find")
    prompts: dict[str, Prompt] = Field(
        {}, description="the words it is asked with, as in `prompts`; what its own folder says when empty"
    )


class PruneConfig(Section):
    """Which layers go, when, and how the model heals."""

    when: Literal["never", "before", "after"] = Field(
        "never", description="before training (a base only), after it, or never"
    )
    drop_share: float = Field(0.25, gt=0, lt=1, description="share of layers dropped (Giga: 0.25)")
    method: Literal["even", "last", "angular"] = Field(
        "angular", description="even spacing, the last layers, or the block that changes states least"
    )
    heal_steps: int = Field(100, ge=0, description="distillation steps from the unpruned model")
    heal_batch: int = Field(128, ge=2, description="texts a healing step")
    heal_learning_rate: float = Field(1e-4, gt=0, description="peak of the healing")

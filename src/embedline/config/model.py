"""Sections about the model: backbone, tokenizer, pooling, heads, prompts, teacher, pruning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedline.config.base import Section


class Prompt(Section):
    """The words put before a text: by side, or as one instruction put before queries.

    `{query: "search_query: ", document: "search_document: "}` are Nomic Embed's prefixes;
    `{instruct: "Given a question, find the answer"}` is GigaEmbeddings' `Instruct: …\\nQuery: `. A symmetric
    task has no documents: both of its sides get the query's words.
    """

    query: str = Field("", description="words put before a query")
    document: str = Field("", description="words put before a document")
    instruct: str = Field("", description="task instruction; queries get `Instruct: …\\nQuery: `")

    @model_validator(mode="after")
    def _instruct_alone(self) -> Prompt:
        if self.instruct and (self.query or self.document):
            raise ValueError("instruct excludes query and document: queries get it, documents get nothing")
        return self

    def words(self, *, of_query: bool) -> str:
        """Return the words put before a query, or before a document."""
        if self.instruct:
            return f"Instruct: {self.instruct}\nQuery: " if of_query else ""
        return self.query if of_query else self.document


class LatentConfig(Section):
    """Latent attention pooling (NV-Embed: 512 latents, 8 heads)."""

    latents: int = Field(512, ge=1, description="rows of the trained array that gives the keys and values")
    heads: int = Field(
        8, ge=1, description="attention heads; the model's width must be a multiple of their number"
    )


class DynamicNTK(Section):
    """Rotary positions stretched beyond what the model was trained on, by each text's own length."""

    factor: float = Field(
        2.0,
        ge=1,
        description="how far rotary frequencies are stretched beyond the trained length (Nomic Embed: 2)",
    )
    trained_length: int = Field(2048, ge=16, description="tokens up to which positions stay as trained")


class LoraConfig(Section):
    """Low-rank adapters instead of full training (Hu et al. 2021); merged when the model is saved."""

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(
        32, ge=1, description="scale of the adapters: their output is multiplied by alpha / rank"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapters' inputs during training")
    targets: list[str] = Field([], description="names of the adapted layers; every linear layer when empty")


class HybridWeights(Section):
    """The weights of the heads in a hybrid score."""

    dense: float = Field(1.0, ge=0, description="weight of the dense score")
    lexical: float = Field(0.3, ge=0, description="weight of the lexical score (BGE-M3: 0.3)")
    multi_vector: float = Field(1.0, ge=0, description="weight of the multi-vector score")


Head = Literal["dense", "lexical", "multi_vector"]
Pooling = Literal["mean", "cls", "last", "latent", "mcls"]


PlainPooling = Literal["mean", "cls", "last"]


class ModelConfig(Section):
    """The encoder: an existing one (`base`), or one made from scratch (`architecture`)."""

    base: str | None = Field(
        None, description="folder, hub id, or package:NAME of the base model; from scratch when empty"
    )
    revision: str | None = Field(None, description="revision of a hub model; pinned by preflight when empty")
    base_pooling: PlainPooling | None = Field(
        None,
        description="pooling of the base's own vectors, as `evaluate` scores it; that of its modules.json "
        "when empty, and mean without one",
    )
    base_causal: bool | None = Field(
        None,
        description="attention mask of the base's own vectors, for a decoder; that of its files when empty, "
        "and bidirectional for a language model without modules.json",
    )
    architecture: str = Field("modernbert", description="transformers model_type for training from scratch")
    settings: dict[str, Any] = Field(
        {},
        description="values of the architecture's own config (hidden_size, num_hidden_layers, …); with a "
        "base they only serve the estimates of `embedline plan` until the base is there",
    )
    vocabulary: int = Field(
        16_384, ge=64, multiple_of=64, description="number of tokens of a tokenizer trained from scratch"
    )
    lowercase: bool = Field(True, description="a tokenizer trained from scratch folds case, and ё to е")
    trust_remote_code: bool = Field(False, description="run the model code that `base` carries")
    pooling: Pooling = Field(
        "mean",
        description="how token states become one vector; mcls: the mean of CLS tokens, one every mcls_every",
    )
    latent: LatentConfig = LatentConfig()
    mcls_every: int = Field(256, ge=8, description="tokens between two CLS tokens of pooling mcls (M3: 256)")
    layer_norm: bool = Field(
        False,
        description="layer norm without parameters on the pooled vector, before Matryoshka cuts it (Nomic)",
    )
    heads: list[Head] = Field(
        ["dense"], description="outputs of one forward pass; dense is always among them"
    )
    multi_vector_width: int | None = Field(
        None, ge=8, description="width of the multi-vector head's token vectors; the model's width when empty"
    )
    hybrid: HybridWeights = HybridWeights()
    positions: int | None = Field(
        None,
        ge=16,
        description="tokens that learned positions are extended to, by repeating them (XLM-R: 8192)",
    )
    dynamic_ntk: DynamicNTK | None = None
    lora: LoraConfig | None = None
    query_length: int = Field(64, ge=8, description="tokens at which a query (short side) is cut")
    document_length: int = Field(256, ge=8, description="tokens at which a document (long side) is cut")
    dims: list[int] = Field([], description="Matryoshka dims; the full width is always one of them")


def row_tokens(tokens: int, pooling: str, mcls_every: int) -> int:
    """Return the tokens of a text's row: its own, and the CLS tokens that pooling mcls inserts."""
    return tokens + ((tokens - 1) // mcls_every if pooling == "mcls" else 0)


class TeacherConfig(Section):
    """A pretrained embedding model that filters data (consistency) and may be distilled from."""

    model: str = Field(description="folder, hub id, or package:NAME of the teacher model")
    revision: str | None = Field(None, description="revision of a hub model; pinned by preflight when empty")
    pooling: PlainPooling | None = Field(
        None, description="pooling of the teacher; that of its modules.json when empty"
    )
    causal: bool | None = Field(
        None, description="attention mask of a teacher that is a decoder; that of its files when empty"
    )
    languages: list[str] = Field(
        ["en"], description="languages of the teacher; texts in others are neither filtered nor distilled"
    )
    filter: bool = Field(
        True, description="clean drops the pairs whose document the teacher does not retrieve"
    )
    prompts: dict[str, Prompt] = Field(
        {}, description="prompts of the teacher, as in `prompts`; those of its own folder when empty"
    )


class VocabularyConfig(Section):
    """Dropping of tokens that the run's texts and their languages do not use."""

    when: Literal["never", "before", "after"] = Field(
        "never",
        description="when unused tokens are dropped, with their rows of the token table: before training (of "
        "a base model only; it saves memory and time), after it, or never",
    )
    min_count: int = Field(
        1, ge=1, description="a token stays that occurs so often in the cleaned records and passages"
    )
    same_letters: bool = Field(
        True,
        description="tokens that the texts do not use stay if the common letters of the texts spell them, "
        "Latin ones excepted, which dozens of languages share; new texts may use them",
    )


class PruneConfig(Section):
    """Dropping of layers and of unused tokens, before or after training, and healing by distillation."""

    when: Literal["never", "before", "after"] = Field(
        "never",
        description="when layers are dropped: before training (of a base model only), after it, or never",
    )
    drop_share: float = Field(
        0.25, gt=0, lt=1, description="share of the layers that are dropped (Giga: 0.25)"
    )
    method: Literal["even", "last", "angular"] = Field(
        "angular",
        description="which layers are dropped: evenly spaced ones, the last ones, or the block that changes "
        "the states least",
    )
    heal_steps: int = Field(
        100, ge=0, description="optimizer steps of distillation from the unpruned model; 0 does not heal"
    )
    heal_batch: int = Field(128, ge=2, description="texts of one healing step")
    heal_learning_rate: float = Field(1e-4, gt=0, description="learning rate of healing after its warm-up")
    heal_warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the healing steps in which the learning rate rises from 0"
    )
    vocabulary: VocabularyConfig = VocabularyConfig()

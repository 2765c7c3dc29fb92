"""Sections about training: the three stages, mining, the machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from embedline.config.base import Section
from embedline.config.data import TaskType


class Optimization(Section):
    """What every stage needs to know about its steps."""

    enabled: bool = Field(True, description="a stage that is off hands its input on")
    steps: int = Field(1000, ge=1, description="optimizer steps")
    learning_rate: float = Field(2e-4, gt=0, description="peak of the schedule")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps")
    schedule: Literal["linear", "cosine", "constant", "warmup_stable_decay"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW: decoupled, not on biases and norms")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: of the mean of the gradients")
    beta2: float = Field(0.98, gt=0, lt=1, description="AdamW: of the mean of their squares")
    epsilon: float = Field(1e-8, gt=0, description="AdamW: beside the root of the squares")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    batch_tokens: int = Field(4096, ge=64, description="tokens of one chunk, padding included")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    log_every: int = Field(
        10, ge=1, description="steps between two points of the curves; each component's README.md names them"
    )
    max_bad_steps: int = Field(
        3, ge=0, description="steps skipped because loss or gradient is not finite, before the stage fails"
    )


class PretrainConfig(Optimization):
    """Self-supervised training on passages: RetroMAE, MLM, or masked next token for a decoder."""

    objective: Literal["retromae", "mlm", "mntp"] = Field(
        "retromae",
        description="RetroMAE (Xiao et al. 2022), masked tokens, or LLM2Vec's masked next tokens (decoders)",
    )
    batch: int = Field(64, ge=1, description="passages a step")
    length: int = Field(128, ge=16, description="tokens of a passage")
    encoder_mask: float = Field(0.3, gt=0, lt=1, description="share of tokens hidden from the encoder")
    decoder_mask: float = Field(0.5, gt=0, lt=1, description="RetroMAE: share hidden from its decoder")
    bag_of_words: float = Field(
        0.0, ge=0, description="weight of a term that asks which words the text holds (DupMAE)"
    )
    bag_of_words_from: Literal["vector", "tokens"] = Field(
        "vector", description="what says them: the sentence vector, or the token states (DupMAE's own way)"
    )
    decoder_targets: float = Field(
        1.0, gt=0, le=1, description="share of tokens the decoder predicts (paper: all; fewer is faster)"
    )


class Bucket(Section):
    """Records up to a length, and how many of them make a batch."""

    tokens: int = Field(ge=8, description="of a record's longest text, prompt included")
    batch: int = Field(ge=2, description="records a step")


class DistillationConfig(Section):
    """What a teacher says about a stage's batches, learnt beside their labels."""

    of: Literal["scores", "vectors", "rows"] = Field(
        "scores",
        description="how the run's teacher ranks a batch's documents; its vectors, when they are as wide; or "
        "the scores that the rows bring for their own documents (pos_scores, neg_scores)",
    )
    loss: Literal["kl_div", "m3_kd_loss"] = Field(
        "kl_div",
        description="m3_kd_loss, of rows alone: in the objective's place, each of a query's own documents an "
        "answer that weighs by its share of their scores (FlagEmbedding's)",
    )
    weight: float = Field(1.0, gt=0, description="beside the objective's loss, which weighs 1")
    temperature: float = Field(
        0.05,
        gt=0,
        description="scores: of both rankings; rows: not used, theirs are taken as they are",
    )


class ContrastiveConfig(Optimization):
    """Training on pairs or triplets, with GradCache, single-source batches and Matryoshka.

    Records with a score (STS) are trained with CoSENT, whatever the objective: a pair of a low score is no
    positive.
    """

    objective: Literal["infonce", "unified"] = Field(
        "infonce", description="unified: BGE-M3's loss on dense, lexical and multi-vector scores together"
    )
    self_distillation: bool = Field(True, description="unified: the sum of the scores teaches each of them")
    self_distillation_after: int = Field(0, ge=0, description="unified: joint steps before that (M3: 6000)")
    cosent_scale: float = Field(20.0, gt=0, description="inverse temperature of CoSENT on scored records")
    distillation: DistillationConfig | None = None
    batch: int = Field(
        256,
        ge=2,
        description="pairs a step, all from one source and each other's negatives: GradCache makes them one "
        "batch, which accumulated gradients are not",
    )
    buckets: list[Bucket] = Field(
        [], description="batches of records of like length, a batch size each; `batch` is not used then"
    )
    temperature: float = Field(0.02, gt=0, description="cosines are divided by it")
    learnable_temperature: bool = Field(False, description="trained from `temperature` on, as in CLIP")
    symmetric: bool = Field(False, description="also score documents against queries")
    negatives: int = Field(0, ge=0, description="hard negatives a query (supervised: up to 7)")
    in_batch_negatives: bool = Field(True, description="the other documents of the batch are negatives, too")
    false_negative_margin: float | None = Field(
        0.1, description="in-batch documents scoring above positive + margin are masked (GISTEmbed's rule)"
    )
    document_length: int | None = Field(
        None,
        ge=8,
        description="tokens of a document in this stage; shorter than model.document_length is faster",
    )
    matryoshka: bool = Field(False, description="the loss also on model.dims")
    matryoshka_weights: list[float] = Field([], description="one a dim; equal when empty")
    prompts: bool = Field(True, description="put the prompts before the texts")
    resident_tokens: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="tokens whose graph GradCache may keep instead of computing it twice; auto: as many as "
        "half of the free memory holds",
    )
    max_share: float = Field(1.0, gt=0, le=1, description="largest share of batches one source may take")
    size_exponent: float = Field(0.7, ge=0, le=1, description="share of a source ~ rows ** exponent × weight")
    task_shares: dict[TaskType, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="shares of the batches by task type, of whatever sum (Giga: short-long 33, long-short "
        "24, sts 19, bitext 18, short-short 3, long-long 3), whatever the sources; those of one type divide "
        "its share by weight and rows",
    )


class MineConfig(Section):
    """Hard negatives: exact top-k of the current model, kept when clearly below the positive."""

    enabled: bool = Field(True, description="when off, records keep the negatives that they bring")
    negatives: int = Field(7, ge=1, le=50, description="a query")
    depth: int = Field(100, ge=1, description="candidates looked at a query")
    skip_top: int = Field(0, ge=0, description="best candidates left out as likely positives")
    margin: float = Field(0.95, gt=0, le=1, description="keep a candidate below margin × positive's score")
    document_length: int | None = Field(None, ge=8, description="tokens of a document while mining")
    sampling: Literal["top", "random"] = Field(
        "top", description="hardest first, or a seeded draw from the depth"
    )


class RuntimeConfig(Section):
    """The machine."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="bf16 is autocast over fp32 weights. auto: bf16 where GPU or CPU has instructions for "
        "it, else fp32 (bf16 would be emulated, many times slower)",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a process; when empty, all, shared by the processes"
    )
    processes: int = Field(
        1,
        ge=1,
        description="that train together on one machine, each on a GPU of its own where there are any",
    )
    attention: Literal["auto", "sdpa", "flash_attention_2", "plain"] = Field(
        "auto",
        description="auto: flash attention 2 where it is installed and a GPU is used, plain (matrix products "
        "while training, sdpa else) on a CPU, else sdpa",
    )

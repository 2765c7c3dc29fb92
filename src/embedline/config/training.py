"""Sections about training: the three stages, mining, the machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from embedline.config.base import Section
from embedline.config.data import TaskType


class Optimization(Section):
    """Settings that every training stage has for its optimizer steps."""

    enabled: bool = Field(True, description="false switches the stage off: its input model is passed through")
    steps: int = Field(1000, ge=1, description="number of optimizer steps")
    learning_rate: float = Field(
        2e-4, gt=0, description="learning rate after the warm-up, the largest of the schedule"
    )
    warmup: float = Field(
        0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0"
    )
    schedule: Literal["linear", "cosine", "constant", "warmup_stable_decay"] = Field(
        "linear", description="how the learning rate falls after the warm-up"
    )
    decay: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of the steps, at the end, in which the learning rate of warmup_stable_decay "
        "falls; other schedules do not use it",
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW's decoupled weight decay; biases and norms have none"
    )
    beta1: float = Field(
        0.9, ge=0, lt=1, description="AdamW's decay rate of the running mean of the gradients"
    )
    beta2: float = Field(
        0.98, gt=0, lt=1, description="AdamW's decay rate of the running mean of the squared gradients"
    )
    epsilon: float = Field(
        1e-8, gt=0, description="AdamW's constant added to the root of the mean squared gradient"
    )
    clip: float = Field(
        1.0, gt=0, description="largest norm of the gradient; a longer gradient is scaled down to it"
    )
    batch_tokens: int = Field(
        4096,
        ge=64,
        description="tokens that are encoded at a time, padding included; bounds the memory of a step",
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between two checkpoints")
    log_every: int = Field(
        10, ge=1, description="steps between two points of the curves; each component's README.md names them"
    )
    max_bad_steps: int = Field(
        3,
        ge=0,
        description="steps that may be skipped because their loss or gradient is not finite; one more "
        "fails the stage",
    )


class PretrainConfig(Optimization):
    """Self-supervised training on passages: RetroMAE, MLM, or masked next token for a decoder."""

    objective: Literal["retromae", "mlm", "mntp"] = Field(
        "retromae",
        description="RetroMAE (Xiao et al. 2022), masked tokens (BERT), or masked next tokens (LLM2Vec, "
        "for decoders)",
    )
    batch: int = Field(64, ge=1, description="passages of one optimizer step")
    length: int = Field(128, ge=16, description="tokens after which a passage is cut")
    encoder_mask: float = Field(
        0.3, gt=0, lt=1, description="share of the tokens that are hidden from the encoder"
    )
    hidden_as: Literal["auto", "mask", "bert"] = Field(
        "auto",
        description="what the encoder sees of hidden tokens. mask: the mask token; bert: of 80 % of them the "
        "mask token, of 10 % a random token, of 10 % the token itself (BERT, and the code of RetroMAE's "
        "authors). auto: mask for retromae, as in its paper, else bert",
    )
    whole_words: bool = Field(
        False,
        description="hide all tokens of a word together, also from RetroMAE's decoder (as in the code of its "
        "authors; the paper draws tokens). A word ends at white space and punctuation; in scripts without "
        "spaces each token is a word",
    )
    decoder_mask: float = Field(
        0.5, gt=0, lt=1, description="RetroMAE: share of the tokens that are hidden from its decoder"
    )
    bag_of_words: float = Field(
        0.0, ge=0, description="RetroMAE: weight of a loss that predicts the words of the text (DupMAE)"
    )
    bag_of_words_from: Literal["vector", "tokens"] = Field(
        "vector",
        description="RetroMAE: what the words are predicted from: the sentence vector, or the token states "
        "(as in DupMAE)",
    )
    decoder_targets: float = Field(
        1.0,
        gt=0,
        le=1,
        description="RetroMAE: share of the tokens that the decoder predicts (paper: all; fewer is faster)",
    )


class Bucket(Section):
    """Records up to a length, and how many of them make a batch."""

    tokens: int = Field(
        ge=8, description="largest length in tokens of a record's longest text, prompt included"
    )
    batch: int = Field(ge=2, description="records of one optimizer step")


class DistillationConfig(Section):
    """A teacher's scores or vectors of a stage's batches, learnt beside the labels."""

    of: Literal["scores", "vectors", "rows"] = Field(
        "scores",
        description="what is learnt. scores: the ranking of a batch's documents by the run's teacher; "
        "vectors: the teacher's vectors, by cosine, through a trained projection where they have another "
        "width than the model's; rows: the scores that the rows have for their own documents (pos_scores, "
        "neg_scores)",
    )
    loss: Literal["kl_div", "m3_kd_loss"] = Field(
        "kl_div",
        description="kl_div is added to the objective's loss. m3_kd_loss, for rows only, replaces it: each "
        "of a query's own documents counts as a positive, weighted by its share of their scores (as in "
        "FlagEmbedding)",
    )
    weight: float = Field(
        1.0, gt=0, description="weight of the distillation loss; the objective's loss weighs 1"
    )
    temperature: float = Field(
        0.05,
        gt=0,
        description="temperature of both rankings when scores are learnt; the scores of rows are used as "
        "they are",
    )


class ContrastiveConfig(Optimization):
    """Training on pairs or triplets, with GradCache, single-source batches and Matryoshka.

    Records with a score (STS) are trained with CoSENT, whatever the objective: a pair of a low score is no
    positive.
    """

    objective: Literal["infonce", "unified"] = Field(
        "infonce",
        description="infonce: InfoNCE on the dense vectors; unified: BGE-M3's loss on dense, lexical and "
        "multi-vector scores together",
    )
    self_distillation: bool = Field(
        True, description="objective unified: each head also learns from the sum of all heads' scores"
    )
    self_distillation_after: int = Field(
        0, ge=0, description="objective unified: steps before self-distillation begins (BGE-M3: 6000)"
    )
    freeze_encoder: bool = Field(
        False,
        description="objective unified: train the lexical and multi-vector heads alone. A step costs a "
        "forward pass, and dense vectors stay bit for bit as they are; a learning rate of about 1e-3 fits. "
        "Records with a score are left out (FlagEmbedding: fix_encoder)",
    )
    cosent_scale: float = Field(
        20.0, gt=0, description="inverse temperature of the CoSENT loss on records with scores"
    )
    distillation: DistillationConfig | None = None
    batch: int = Field(
        256,
        ge=2,
        description="pairs of one optimizer step, all from one source and each other's negatives: "
        "GradCache makes them one batch, which gradient accumulation does not",
    )
    buckets: list[Bucket] = Field(
        [],
        description="batches of records of similar length, each bucket with its own batch size; replaces "
        "`batch`",
    )
    temperature: float = Field(0.02, gt=0, description="temperature of InfoNCE, which cosines are divided by")
    learnable_temperature: bool = Field(
        False, description="train the temperature, beginning with `temperature`, as in CLIP"
    )
    symmetric: bool = Field(
        False, description="add the loss of finding each query from its positive among all queries"
    )
    negatives: int = Field(0, ge=0, description="hard negatives used of each query (supervised: up to 7)")
    in_batch_negatives: bool = Field(
        True, description="use the other documents of the batch as negatives, too"
    )
    false_negative_margin: float | None = Field(
        0.1,
        description="documents that score above the positive's score plus this margin are masked as likely "
        "false negatives (the rule of GISTEmbed); null masks none",
    )
    document_length: int | None = Field(
        None,
        ge=8,
        description="tokens after which a document is cut in this stage; shorter than "
        "model.document_length is faster",
    )
    matryoshka: bool = Field(
        False,
        description="train the first components of the vectors, too: the loss is added for each of "
        "model.dims",
    )
    matryoshka_weights: list[float] = Field(
        [], description="weight of the loss for each of model.dims; 1 each when empty"
    )
    prompts: bool = Field(True, description="put the prompts before the texts while training")
    resident_tokens: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="tokens of a step whose activations GradCache keeps instead of computing them twice; "
        "auto: as many as half of the free memory holds",
    )
    max_share: float = Field(
        1.0, gt=0, le=1, description="largest share of the batches that one source may have"
    )
    size_exponent: float = Field(
        0.7, ge=0, le=1, description="exponent in the share of a source: rows ** exponent × weight"
    )
    task_shares: dict[TaskType, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="share of the batches for each task type, in any unit (Giga: short-long 33, long-short "
        "24, sts 19, bitext 18, short-short 3, long-long 3); the sources of one type divide its share by "
        "weight and rows",
    )


MiningStrategy = Literal["model", "bm25"]


class MineConfig(Section):
    """Hard negatives: texts that a search finds for the query, kept when clearly below the positive."""

    enabled: bool = Field(
        True, description="false switches mining off: records keep the negatives that they have"
    )
    negatives: int = Field(7, ge=1, le=50, description="hard negatives mined for each query")
    strategies: dict[MiningStrategy, Annotated[float, Field(gt=0)]] = Field(
        {"model": 1.0},
        min_length=1,
        description="where a query's negatives come from, with the share of each in any unit. model: the "
        "nearest documents of the current model, by exact search; bm25: those of BM25, which have words of "
        "the query. What one has too few of, the others give",
    )
    depth: int = Field(100, ge=1, description="best documents of each strategy considered for each query")
    skip_top: int = Field(
        0, ge=0, description="best documents of each strategy skipped for each query as likely positives"
    )
    margin: float = Field(
        0.95,
        gt=0,
        le=1,
        description="keep a candidate whose score by the current model is below margin × positive's score",
    )
    document_length: int | None = Field(
        None, ge=8, description="tokens after which a document is cut while mining"
    )
    sampling: Literal["top", "random"] = Field(
        "top", description="top: the hardest candidates; random: a seeded draw from `depth` candidates"
    )


class RuntimeConfig(Section):
    """Settings of the machine that the run works on."""

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="precision of training and encoding; bf16 is autocast over fp32 weights. auto: the "
        "faster one; on a CPU both are measured with a layer of the model, once a machine, for training and "
        "encoding apart (`embedline doctor` shows them)",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of each process; when empty, all cores, or as many as the container may "
        "use, divided by the processes",
    )
    processes: int = Field(
        1,
        ge=1,
        description="processes that train together on one machine, each on its own GPU where there are GPUs",
    )
    attention: Literal["auto", "sdpa", "flash_attention_2", "plain"] = Field(
        "auto",
        description="attention implementation. auto: flash attention 2 where it is installed and a GPU is "
        "used, plain (matrix products while training, else sdpa) on a CPU, else sdpa",
    )

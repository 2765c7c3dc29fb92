"""The estimated cost of a run's training, from its config alone: tokens, GPU-hours, memory by stage.

The formulas, for a model of N weights in its matrices (tables are looked up, not multiplied by), L layers of
width D, and texts of T tokens:

- a token costs 6 N + 12 L D T operations, forward and backward (Chowdhery et al. 2022, "PaLM", appendix B);
  4 N + 12 L D T with LoRA, whose frozen weights need no gradient of their own;
- GradCache encodes what it does not keep twice: × 4/3; `resident_tokens: auto` keeps as many states as half
  of the memory holds that weights and gradients leave on the GPU, and needs none of it;
- hours = operations / (the GPU's peak × the share of it that is reached) / 3600;
- memory = 16 bytes a weight (fp32 weights, gradients and Adam's two moments; 4 a frozen one), 2 more for the
  bf16 copies; the states that one chunk keeps for its backward pass (Korthikanti et al. 2022, "Reducing
  Activation Recomputation", eq. 1, without dropout and attention scores, which fused attention does not
  keep); the vectors of the whole batch, unit ones beside them, with their gradients; the scores of the loss,
  which of dense vectors are a block at a time. Several processes share the states; each holds all else.

Every text counts at its full length, so real runs, whose texts are shorter, cost less. Buckets share the
steps evenly: how the records fall into them is known only from the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.config.training import ContrastiveConfig, PretrainConfig
from embedline.dag import STEPS
from embedline.planning.model_size import Sizes, backbone_sizes

UTILISATION = 0.4  # of the peak: reached by well-kept training of encoders
_SCORE_COPIES = 4  # scores, logits, probabilities, gradient
SCORES_AT_ONCE = 2**21  # of dense vectors; as training.objectives.streaming, which would load torch
_HEAL_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: bf16 operations a second without sparsity and bytes of memory, from its data sheet."""

    peak: float
    memory: float


GPUS = {
    "h100": Gpu(989e12, 80e9),
    "h200": Gpu(989e12, 141e9),
    "a100": Gpu(312e12, 80e9),
    "l40s": Gpu(362e12, 48e9),
    "l4": Gpu(121e12, 24e9),
}


@dataclass(frozen=True)
class Batch:
    """The batches of one length: texts of up to `length` tokens, `batch` records and `tokens` a step."""

    length: int
    batch: int
    steps: float
    tokens: int


@dataclass(frozen=True)
class Stage:
    """One stage. Hours and memory (of one process' largest batch) are None where sizes are unknown."""

    name: str
    steps: int
    batches: list[Batch]
    tokens: float
    gpu_hours: float | None
    memory_gb: float | None


@dataclass(frozen=True)
class Estimate:
    """The training stages of a run on one kind of GPU. `unknown`: why there are no hours."""

    gpu: str
    utilisation: float
    parameters: int | None
    layers: int | None
    stages: list[Stage]
    unknown: str = ""
    processes: int = 1


def estimate_run(
    config: RunConfig, base: Path | None = None, *, gpu: str = "h100", utilisation: float = UTILISATION
) -> Estimate:
    """Estimate the stages that train; ingest, mining, export and evaluation depend on the data.

    Args:
        base: folder of the base model; None where it is not on this machine.
    """
    whole = sizes = backbone_sizes(config.model, base)
    rate = GPUS[gpu].peak * utilisation * 3600
    stages = []
    if whole is not None and config.prune.when == "before":
        sizes = whole.with_layers(layers_left(whole.layers, config))
        stages += _healing(config, "prune_before", whole, sizes, rate)
    if config.pretrain.enabled:
        stages.append(_pretraining(config, config.pretrain, sizes, rate))
    for name, step in STEPS.items():
        stage = getattr(config, step.switch, None)
        if isinstance(stage, ContrastiveConfig) and stage.enabled:
            stages.append(_contrastive(config, name, stage, sizes, GPUS[gpu].memory, rate))
    if whole is not None and config.prune.when == "after":
        stages += _healing(
            config, "prune_after", whole, whole.with_layers(layers_left(whole.layers, config)), rate
        )
    unknown = ""
    if sizes is None:
        unknown = f"the sizes of {config.model.base or config.model.architecture} are not known here"
    return Estimate(
        gpu,
        utilisation,
        sizes.parameters if sizes else None,
        sizes.layers if sizes else None,
        stages,
        unknown,
        config.runtime.processes,
    )


def layers_left(layers: int, config: RunConfig) -> int:
    """Return the layers left by pruning, as compress.layers counts them, which would load torch."""
    return layers - min(max(round(config.prune.drop_share * layers), 1), layers - 1)


def _pretraining(config: RunConfig, stage: PretrainConfig, sizes: Sizes | None, rate: float) -> Stage:
    tokens = stage.batch * stage.length
    batches = [Batch(stage.length, stage.batch, float(stage.steps), tokens)]
    if sizes is None:
        return _stage("pretrain", stage.steps, batches)
    predicted = stage.encoder_mask
    operations = _token_cost(config, sizes, stage.length)
    if stage.objective == "retromae":  # its one-layer decoder predicts tokens as well
        predicted += stage.decoder_targets
        operations += _token_cost(config, sizes.with_layers(1), stage.length)
    operations += 6 * predicted * sizes.width * sizes.vocabulary
    chunk = max(stage.batch_tokens, stage.length)
    logits = predicted * chunk * sizes.vocabulary * 4 * 3  # logits, log-probabilities and gradient in fp32
    memory = _weights(config, sizes) + _activations(config, sizes, chunk) + logits
    return _stage("pretrain", stage.steps, batches, stage.steps * tokens * operations / rate, memory)


def _contrastive(
    config: RunConfig, name: str, stage: ContrastiveConfig, sizes: Sizes | None, room: float, rate: float
) -> Stage:
    documents = 1 + stage.negatives
    longest = stage.document_length or config.model.document_length
    buckets = [(bucket.tokens, bucket.batch) for bucket in stage.buckets] or [(longest, stage.batch)]
    batches, hours, memory = [], 0.0, 0.0
    for limit, batch in buckets:
        query, document = min(config.model.query_length, limit), min(longest, limit)
        tokens = batch * (query + documents * document)
        steps = stage.steps / len(buckets)
        batches.append(Batch(document, batch, steps, tokens))
        if sizes is not None:
            cost = batch * query * _token_cost(config, sizes, query)
            cost += batch * documents * document * _token_cost(config, sizes, document)
            resident, kept = _resident(config, stage, sizes, room)
            again = 1 - min(1.0, kept / tokens)  # share of the tokens that is encoded twice
            cost *= 2 / _passes(config) if stage.freeze_encoder else 1 + again / 3
            cost += late_interaction(config, stage, sizes, batch * query, batch * documents * document)
            hours += steps * cost / rate
            held = min(-(-tokens // config.runtime.processes), max(stage.batch_tokens, document) + resident)
            needs = _weights(config, sizes, frozen=stage.freeze_encoder)
            needs += _activations(config, sizes, held) + _vectors(
                config, stage, sizes, batch * (1 + documents), document
            )
            needs += _SCORE_COPIES * 4 * _scores(config, stage, batch * batch * documents)
            memory = max(memory, needs)
    if sizes is None:
        return _stage(name, stage.steps, batches)
    return _stage(name, stage.steps, batches, hours, memory)


def _resident(config: RunConfig, stage: ContrastiveConfig, sizes: Sizes, room: float) -> tuple[int, float]:
    """Return the tokens that keep their states: set by the config, and kept by all processes together."""
    if stage.resident_tokens != "auto":
        return stage.resident_tokens, stage.resident_tokens
    half = max(0.0, room - _weights(config, sizes)) / 2
    return 0, config.runtime.processes * half / _activations(config, sizes, 1)


def kept_tokens(config: RunConfig, stage: ContrastiveConfig, sizes: Sizes, room: float) -> float:
    """Return the tokens of a step that GradCache does not encode twice, in a memory of `room` bytes."""
    return _resident(config, stage, sizes, room)[1]


def _healing(config: RunConfig, name: str, whole: Sizes, left: Sizes, rate: float) -> list[Stage]:
    """Estimate distillation from the unpruned model, which only runs forward."""
    prune, length = config.prune, config.model.document_length
    if not prune.heal_steps:
        return []
    tokens = prune.heal_batch * length
    cost = tokens * (_token_cost(config, left, length) + _token_cost(config, whole, length) / 3)
    memory = _weights(config, left) + 4 * whole.parameters
    memory += _activations(config, left, max(_HEAL_BATCH_TOKENS, length))
    batches = [Batch(length, prune.heal_batch, float(prune.heal_steps), tokens)]
    return [_stage(name, prune.heal_steps, batches, prune.heal_steps * cost / rate, memory)]


def _stage(
    name: str, steps: int, batches: list[Batch], hours: float | None = None, memory: float | None = None
) -> Stage:
    tokens = sum(batch.steps * batch.tokens for batch in batches)
    return Stage(name, steps, batches, tokens, hours, None if memory is None else memory / 1e9)


def _token_cost(config: RunConfig, sizes: Sizes, length: int) -> float:
    """Return the operations of one token, forward and backward, in a text of `length` tokens."""
    latent = 10 * sizes.width**2 if config.model.pooling == "latent" else 0  # two projections and an MLP
    return _passes(config) * sizes.matrices + 6 * latent + 12 * sizes.layers * sizes.width * length


def _passes(config: RunConfig) -> int:
    """Return the operations of one weight and token, forward (2) and backward."""
    return 4 if config.model.lora else 6


def late_interaction(
    config: RunConfig, stage: ContrastiveConfig, sizes: Sizes, queries: float, documents: float
) -> float:
    """Return the operations of multi-vector scores: all pairs of query and document tokens, both passes."""
    if not _trains_heads(stage, config):
        return 0.0
    return 8.0 * queries * documents * (config.model.multi_vector_width or sizes.width)


def _trains_heads(stage: ContrastiveConfig, config: RunConfig) -> bool:
    return stage.objective == "unified" and "multi_vector" in config.model.heads


def _weights(config: RunConfig, sizes: Sizes, *, frozen: bool = False) -> float:
    copies = 0 if config.runtime.precision == "fp32" else 2 * sizes.matrices
    if config.model.lora or frozen:
        return 4 * sizes.parameters + copies
    return 16 * sizes.parameters + copies


def _activations(config: RunConfig, sizes: Sizes, tokens: int) -> float:
    half = sizes.layers * (16 * sizes.width + (4 if sizes.plain else 6) * sizes.inner)
    return tokens * half * (1 if config.runtime.precision == "bf16" else 2)


def _vectors(config: RunConfig, stage: ContrastiveConfig, sizes: Sizes, texts: int, length: int) -> float:
    """Return bytes of a batch's vectors: with unit vectors of each Matryoshka dim and their gradients."""
    dims = config.model.dims if stage.matryoshka else []
    values = 2 * sizes.width + 3 * sum({sizes.width, *dims})
    if _trains_heads(stage, config):
        values += 2 * length * (config.model.multi_vector_width or sizes.width)
    return 4.0 * texts * values


def _scores(config: RunConfig, stage: ContrastiveConfig, matrix: int) -> int:
    if stage.objective == "unified":
        return matrix * (1 + len(config.model.heads))  # and their sum, the teacher of self-distillation
    return min(matrix, SCORES_AT_ONCE)

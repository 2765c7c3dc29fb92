"""The time that the steps of a run take on this machine, from the measured speed of the model's layers.

A training step takes, for a model of L layers:

- L × its tokens × what a token takes a layer forward and backward (models.speed), once more forward for the
  share that GradCache encodes twice; of a teacher forward alone;
- the products outside of layers (predicted tokens, late interaction) at the speed of the layer's;
- a pass of the optimizer over all parameters.

Tokens are those of a sample of the texts. Other steps encode their texts once for each model, or take a time
a row. Constants, measured once on two cores of 2.6 GHz, are: what a step takes to load libraries, models and
texts, the time of a row, that of an updated parameter, and what a real layer takes beside the timed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedline.config.schema import RunConfig
from embedline.config.training import ContrastiveConfig
from embedline.models.layer_work import LayerWork, encoding_work, training_work
from embedline.models.machine import faster_precision, thread_count
from embedline.planning.cost import kept_tokens, late_interaction, layers_left
from embedline.planning.model_size import Sizes, backbone_sizes
from embedline.planning.text_lengths import Texts, corpus_texts, evaluation_texts, stage_texts

_LOADING_S = 8.0  # libraries, model and texts, of a step that has a model
_CHANGE_S = 1.5  # from one step's process to the next
_INGEST_S, _CLEAN_S = 1e-4, 4e-4  # a row
_UPDATE_S = 7e-9  # of Adam, a parameter: about 12 passes of 4 bytes
_OVERHEAD = 1.4  # padding, masks, positions: of a real layer over a bare one without them
_EXPORT_S = 10.0


@dataclass(frozen=True)
class _Rates:
    """Seconds of one token in one layer, forward and backward or forward; and of one operation."""

    training: float
    encoding: float
    operation: float


def step_seconds(config: RunConfig, root: Path, base: Path | None, memory: float) -> dict[str, float]:
    """Return the seconds of each step that a run of this config takes here; empty for an unknown model.

    Args:
        base: folder of the base model.
        memory: bytes of this machine that are available.
    """
    sizes = backbone_sizes(config.model, base)
    if sizes is None:
        return {}
    whole = sizes
    longest = config.model.document_length
    stages = {
        name: stage_texts(config, root, name, getattr(config, name).document_length or longest)
        for name in ("unsupervised", "supervised")
    }
    corpus = corpus_texts(config, root, config.pretrain.length)
    rows = stages["unsupervised"].rows + stages["supervised"].rows + corpus.rows
    found = {"ingest": rows * _INGEST_S, "clean": rows * _CLEAN_S}
    if config.prune.when == "before":
        sizes = whole.with_layers(layers_left(whole.layers, config))
        found["prune_before"] = _LOADING_S + _healing(config, whole, sizes, corpus)
    elif base is not None:
        found["prune_before"] = _LOADING_S
    if config.pretrain.enabled or base is None:
        found["pretrain"] = _LOADING_S + _pretraining(config, sizes, corpus)
    for name, texts in stages.items():
        stage: ContrastiveConfig = getattr(config, name)
        if stage.enabled:
            seconds = stage.steps * _contrastive_step(config, stage, sizes, texts, memory)
            found[f"train_{name}"] = _LOADING_S + seconds
    if config.mine.enabled:
        found["mine"] = _LOADING_S + _mining(config, sizes, root)
    if config.prune.when == "after":
        left = whole.with_layers(layers_left(whole.layers, config))
        found["prune_after"] = _LOADING_S + _healing(config, whole, left, corpus)
        found["export"] = _EXPORT_S
        found["evaluate"] = _LOADING_S + _evaluation(config, whole, left, root)
    else:
        found["export"] = _EXPORT_S
        found["evaluate"] = _LOADING_S + _evaluation(config, sizes, sizes, root)
    return {name: seconds + _CHANGE_S for name, seconds in found.items()}


def _pretraining(config: RunConfig, sizes: Sizes, corpus: Texts) -> float:
    stage = config.pretrain
    if not stage.enabled:
        return 0.0
    length = corpus.document or float(stage.length)
    tokens = stage.batch * length * _OVERHEAD
    rates = _rates(config, sizes, min(stage.batch_tokens, stage.batch * stage.length), stage.length)
    layers, predicted = sizes.layers, stage.encoder_mask
    if stage.objective == "retromae":
        layers, predicted = layers + 1, predicted + stage.decoder_targets
    products = 6 * predicted * tokens * sizes.width * sizes.vocabulary
    step = tokens * layers * rates.training + products * rates.operation + sizes.parameters * _UPDATE_S
    return stage.steps * step


def _contrastive_step(
    config: RunConfig, stage: ContrastiveConfig, sizes: Sizes, texts: Texts, memory: float
) -> float:
    """Return the seconds of one step, of buckets the mean."""
    longest = stage.document_length or config.model.document_length
    rates = _rates(config, sizes, stage.batch_tokens, longest)
    buckets = [(bucket.tokens, bucket.batch) for bucket in stage.buckets] or [(longest, stage.batch)]
    total = 0.0
    for limit, batch in buckets:
        query = min(texts.query or config.model.query_length, limit) * batch * _OVERHEAD
        document = min(texts.document or longest, limit) * batch * (1 + stage.negatives) * _OVERHEAD
        tokens = query + document
        again = 1 - min(1.0, kept_tokens(config, stage, sizes, memory) / tokens)
        total += tokens * sizes.layers * (rates.training + again * rates.encoding)
        total += late_interaction(config, stage, sizes, query, document) * rates.operation
    return total / len(buckets) + sizes.parameters * _UPDATE_S


def _healing(config: RunConfig, whole: Sizes, left: Sizes, corpus: Texts) -> float:
    longest = config.model.document_length
    tokens = config.prune.heal_batch * min(corpus.document or longest, longest) * _OVERHEAD
    rates = _rates(config, left, 4096, longest)
    step = tokens * (left.layers * rates.training + whole.layers * rates.encoding)
    return config.prune.heal_steps * (step + left.parameters * _UPDATE_S)


def _mining(config: RunConfig, sizes: Sizes, root: Path) -> float:
    longest = config.mine.document_length or config.model.document_length
    texts = stage_texts(config, root, "supervised", longest)
    rates = _rates(config, sizes, 4096, longest)
    encoded = texts.rows * (texts.query + texts.document) * sizes.layers * rates.encoding
    return encoded + 2 * texts.rows**2 * sizes.width * rates.operation


def _evaluation(config: RunConfig, whole: Sizes, left: Sizes, root: Path) -> float:
    """Return the seconds of candidate, base and first champion on all sets, of ONNX and stages on theirs."""
    everything = evaluation_texts(config, root)
    stages = evaluation_texts(config, root, config.evaluate.stage_sets)
    onnx = evaluation_texts(config, root, config.evaluate.onnx_sets) if config.evaluate.onnx_sets else None
    models = 1 + sum(stage.enabled for stage in (config.pretrain, config.unsupervised, config.supervised))
    tokens = everything.rows * everything.document * left.layers
    base, first = config.model.base, config.promote.first_champion
    others = {base} if config.evaluate.score_base else set()
    others |= {first} if config.evaluate.score_champion else set()
    tokens += len(others - {None}) * everything.rows * everything.document * whole.layers
    tokens += models * stages.rows * stages.document * whole.layers
    if onnx is not None:
        tokens += 2 * onnx.rows * onnx.document * left.layers
    return tokens * _rates(config, whole, 4096, config.model.document_length).encoding


def _rates(config: RunConfig, sizes: Sizes, tokens: int, length: int) -> _Rates:
    values = _values(sizes)
    training, encoding = training_work(values, tokens=tokens, length=length), encoding_work(values)
    per_training, per_encoding = _seconds(config, training), _seconds(config, encoding)
    return _Rates(
        per_training / training.tokens, per_encoding / encoding.tokens, per_training / training.operations
    )


def _seconds(config: RunConfig, work: LayerWork) -> float:
    """Return the seconds of the work here, in the run's precision."""
    from embedline.models.device import best_device
    from embedline.models.speed import measured_speed

    precision, threads = config.runtime.precision, thread_count(config.runtime)
    bf16 = faster_precision(work, threads)[0] if precision == "auto" else precision == "bf16"
    speed = measured_speed(work, best_device(), threads)
    return speed.seconds(bf16=bf16) / config.runtime.processes


def _values(sizes: Sizes) -> Mapping[str, str | int]:
    """Return the sizes under the names of a transformers configuration."""
    return {
        "model_type": "bert" if sizes.plain else "",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_attention_heads": sizes.heads,
    }

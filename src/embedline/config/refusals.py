"""The settings that cannot be combined, with reasons: validation applies this list, OPTIONS.md shows it.

Only combinations that cannot work are refused; `embedline plan` warns of those that are unwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from embedline.config.sections import RunSections
from embedline.config.training import ContrastiveConfig
from embedline.redaction import shows_secret, without_passwords


@dataclass(frozen=True)
class Refusal:
    """A combination of settings that validation refuses.

    Args:
        name: the combination, in a few words.
        reason: why it cannot work.
        find: from a config to one message for each place with the combination, naming the setting.
    """

    name: str
    reason: str
    find: Callable[[RunSections], Iterator[str]]


def _stages(config: RunSections) -> Iterator[tuple[str, ContrastiveConfig]]:
    """List the contrastive stages by name."""
    yield "unsupervised", config.unsupervised
    yield "supervised", config.supervised


def _width(config: RunSections) -> int | None:
    """Return the model's width if the config holds it; a base's width is checked when the base is loaded."""
    width: int | None = None if config.model.base else config.model.settings.get("hidden_size")
    return width


def _heads_without_dense(config: RunSections) -> Iterator[str]:
    if "dense" not in config.model.heads:
        yield "model.heads: dense must be among them"


def _unified_with_one_head(config: RunSections) -> Iterator[str]:
    if len(set(config.model.heads)) == 1:
        for stage, settings in _stages(config):
            if settings.enabled and settings.objective == "unified":
                yield f"{stage}.objective: unified needs lexical or multi_vector among model.heads"


def _heads_never_trained(config: RunSections) -> Iterator[str]:
    trained = any(settings.enabled and settings.objective == "unified" for _, settings in _stages(config))
    for head in config.model.heads:
        if config.model.base is None and head != "dense" and not trained:
            yield f"model.heads: no stage trains {head}; one needs objective: unified"


def _frozen_encoder_without_heads(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if not (settings.enabled and settings.freeze_encoder):
            continue
        if settings.objective != "unified":
            yield f"{stage}.freeze_encoder: needs objective: unified, which trains the other heads"
        if settings.distillation and settings.distillation.of != "rows":
            of = settings.distillation.of
            yield f"{stage}.freeze_encoder: the teacher's {of} train dense vectors alone"


def _dims_wider_than_model(config: RunSections) -> Iterator[str]:
    width = _width(config)
    for dim in config.model.dims:
        if width is not None and dim > width:
            yield f"model.dims: {dim} is larger than the model's width {width}"


def _latent_heads_not_dividing(config: RunSections) -> Iterator[str]:
    width, heads = _width(config), config.model.latent.heads
    if config.model.pooling == "latent" and width is not None and width % heads:
        yield f"model.latent.heads: the width {width} is not a multiple of {heads} heads"


def _learned_and_rotary_positions(config: RunSections) -> Iterator[str]:
    if config.model.positions is not None and config.model.dynamic_ntk is not None:
        yield "model.positions: is for learned positions and model.dynamic_ntk for rotary ones: set only one"


def _wrong_number_of_weights(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if settings.matryoshka_weights and len(settings.matryoshka_weights) != len(config.model.dims):
            yield f"{stage}.matryoshka_weights: one weight for each of model.dims"


def _unordered_buckets(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if any(one.tokens >= other.tokens for one, other in pairwise(settings.buckets)):
            yield f"{stage}.buckets: their tokens must ascend"


def _no_negatives(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if not settings.in_batch_negatives and settings.negatives == 0:
            yield f"{stage}: in_batch_negatives: false needs negatives: 1 or more"


def _symmetric_without_in_batch(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if settings.symmetric and not settings.in_batch_negatives:
            yield f"{stage}: symmetric: true needs in_batch_negatives: true"


def _distillation_without_teacher(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if settings.distillation and settings.distillation.of != "rows" and config.teacher is None:
            yield f"{stage}.distillation: needs a teacher: set teacher.model"


def _distillation_without_scores(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if settings.enabled and settings.distillation and settings.distillation.of == "rows":
            if settings.negatives == 0:
                yield f"{stage}.distillation: of rows needs {stage}.negatives: 1 or more"
            if stage == "supervised" and config.mine.enabled:
                yield "supervised.distillation: of rows needs mine.enabled: false"


def _m3_kd_loss_misused(config: RunSections) -> Iterator[str]:
    for stage, settings in _stages(config):
        if settings.distillation and settings.distillation.loss == "m3_kd_loss":
            if settings.distillation.of != "rows":
                yield f"{stage}.distillation: loss m3_kd_loss needs of: rows"
            if settings.distillation.weight != 1.0:
                yield f"{stage}.distillation: loss m3_kd_loss has no weight"


def _prune_before_from_scratch(config: RunSections) -> Iterator[str]:
    if config.model.base is None and config.prune.when == "before":
        yield "prune.when: before needs model.base; a model from scratch has no layers to drop"
    if config.model.base is None and config.prune.vocabulary.when == "before":
        yield "prune.vocabulary.when: before needs model.base; from scratch, model.vocabulary sets the tokens"


def _stated_without_base(config: RunSections) -> Iterator[str]:
    for name in ("base_pooling", "base_causal"):
        if config.model.base is None and getattr(config.model, name) is not None:
            yield f"model.{name}: describes a base, and model.base is empty"


def _flash_in_fp32(config: RunSections) -> Iterator[str]:
    if config.runtime.attention == "flash_attention_2" and config.runtime.precision == "fp32":
        yield "runtime.attention: flash_attention_2 needs runtime.precision: bf16"


def _rule_against_unscored_base(config: RunSections) -> Iterator[str]:
    if not config.evaluate.score_base and any(rule.against == "base" for rule in config.gate.rules):
        yield "gate.rules: a rule against the base needs evaluate.score_base: true"


def _passwords(config: RunSections) -> Iterator[str]:
    for key, text in _texts("", config.model_dump(mode="json")):
        if without_passwords(text) != text:
            yield f"{key}: holds a password; give it through the environment instead"
        elif shows_secret(text):
            yield f"{key}: holds the value of a secret; a run's settings are shown, give it another way"


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """List every text of a config with its key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(f"{key}.{name}".lstrip("."), item)


REFUSALS = (
    Refusal(
        "heads without dense",
        "Mining, the index and the gate work with the dense vector.",
        _heads_without_dense,
    ),
    Refusal(
        "unified objective without a second head",
        "It sums several heads' losses and distils from their summed scores; one head alone is InfoNCE.",
        _unified_with_one_head,
    ),
    Refusal(
        "a frozen encoder without another head, or with a teacher of dense vectors",
        "Only the lexical and multi-vector heads are trained then; dense vectors stay as they are.",
        _frozen_encoder_without_heads,
    ),
    Refusal(
        "lexical or multi-vector head from scratch that no stage trains",
        "Only the unified objective has a gradient for them; random weights would be saved and exported.",
        _heads_never_trained,
    ),
    Refusal(
        "Matryoshka dims wider than the model",
        "A prefix of a vector cannot be longer than the vector.",
        _dims_wider_than_model,
    ),
    Refusal(
        "latent attention whose heads do not divide the width",
        "Each attention head works on an equal slice of the width.",
        _latent_heads_not_dividing,
    ),
    Refusal(
        "extended positions together with dynamic NTK",
        "A model has either learned positions, which are tiled, or rotary ones, which are scaled.",
        _learned_and_rotary_positions,
    ),
    Refusal(
        "Matryoshka weights that are not one a dim",
        "Each weight belongs to the dim at the same place in the list.",
        _wrong_number_of_weights,
    ),
    Refusal(
        "buckets that do not ascend",
        "A record goes to the first bucket that its longest text fits in, so the limits must grow.",
        _unordered_buckets,
    ),
    Refusal(
        "no negatives at all",
        "Without in-batch negatives and hard negatives the loss of every query is 0.",
        _no_negatives,
    ),
    Refusal(
        "symmetric loss without in-batch negatives",
        "A document's negatives are the other queries of the batch.",
        _symmetric_without_in_batch,
    ),
    Refusal(
        "distillation without a teacher",
        "Its targets are the scores or vectors of a teacher model.",
        _distillation_without_teacher,
    ),
    Refusal(
        "distillation from the rows' scores without the rows' negatives",
        "Only negatives from the data bring scores; mined negatives have none.",
        _distillation_without_scores,
    ),
    Refusal(
        "m3_kd_loss of anything but the rows' scores, or with a weight",
        "It needs scores of a query's own documents, and replaces the objective's loss: there is no weight.",
        _m3_kd_loss_misused,
    ),
    Refusal(
        "pruning before training from scratch",
        "There is no trained model yet whose layers could be measured and dropped.",
        _prune_before_from_scratch,
    ),
    Refusal(
        "pooling or mask of a base without a base",
        "They say how the base's own vectors are made; a new model has model.pooling.",
        _stated_without_base,
    ),
    Refusal(
        "flash attention 2 in fp32",
        "Its kernels exist for 16-bit numbers only.",
        _flash_in_fp32,
    ),
    Refusal(
        "a gate rule against a base that is not scored",
        "The rule would compare with scores that were not measured.",
        _rule_against_unscored_base,
    ),
    Refusal(
        "a password in an address",
        "Addresses are written to plans, logs, reports and the tracker.",
        _passwords,
    ),
)


def find_refusals(config: RunSections) -> Iterator[str]:
    """List the refused combinations in a config, in the order of REFUSALS."""
    for refusal in REFUSALS:
        yield from refusal.find(config)

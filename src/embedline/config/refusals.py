"""Which settings do not go together, and why: the one list, which validation applies and the docs print.

A combination stands here only where it cannot work; what is merely unwise is a warning of `embedline plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from embedline.config.training import ContrastiveConfig
from embedline.errors import without_passwords

if TYPE_CHECKING:
    from embedline.config.schema import RunConfig


@dataclass(frozen=True)
class Refusal:
    """A combination of settings that validation refuses.

    Args:
        name: the combination, in a few words.
        reason: why it cannot work.
        found: what is wrong with a config, naming the setting, once for each place.
    """

    name: str
    reason: str
    found: Callable[[RunConfig], Iterator[str]]


def _stages(config: RunConfig) -> Iterator[tuple[str, ContrastiveConfig]]:
    yield "unsupervised", config.unsupervised
    yield "supervised", config.supervised


def _width(config: RunConfig) -> int | None:
    """The width where the config says it: a base's is known when it is loaded, and checked there."""
    width: int | None = None if config.model.base else config.model.settings.get("hidden_size")
    return width


def _no_dense(config: RunConfig) -> Iterator[str]:
    if "dense" not in config.model.heads:
        yield "model.heads: dense must be among them"


def _nothing_to_unify(config: RunConfig) -> Iterator[str]:
    if len(set(config.model.heads)) == 1:
        for stage, each in _stages(config):
            if each.enabled and each.objective == "unified":
                yield f"{stage}.objective: unified needs lexical or multi_vector among model.heads"


def _untrained_heads(config: RunConfig) -> Iterator[str]:
    trained = any(each.enabled and each.objective == "unified" for _, each in _stages(config))
    for head in config.model.heads:
        if config.model.base is None and head != "dense" and not trained:
            yield f"model.heads: no stage trains {head}; one needs objective: unified"


def _wide_dims(config: RunConfig) -> Iterator[str]:
    width = _width(config)
    for dim in config.model.dims:
        if width is not None and dim > width:
            yield f"model.dims: {dim} is larger than the model's width {width}"


def _latent_heads(config: RunConfig) -> Iterator[str]:
    width, heads = _width(config), config.model.latent.heads
    if config.model.pooling == "latent" and width is not None and width % heads:
        yield f"model.latent.heads: the width {width} is not a multiple of {heads} heads"


def _two_kinds_of_positions(config: RunConfig) -> Iterator[str]:
    if config.model.positions is not None and config.model.dynamic_ntk is not None:
        yield "model.positions: is for learned positions, and model.dynamic_ntk for rotary ones; set one"


def _weights_of_dims(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if each.matryoshka_weights and len(each.matryoshka_weights) != len(config.model.dims):
            yield f"{stage}.matryoshka_weights: one weight for each of model.dims"


def _unordered_buckets(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if any(one.tokens >= other.tokens for one, other in pairwise(each.buckets)):
            yield f"{stage}.buckets: their tokens must ascend"


def _no_negatives(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if not each.in_batch_negatives and each.negatives == 0:
            yield f"{stage}: in_batch_negatives: false needs negatives: 1 or more"


def _symmetric_alone(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if each.symmetric and not each.in_batch_negatives:
            yield f"{stage}: symmetric: true needs in_batch_negatives: true"


def _taught_by_nobody(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if each.distillation and each.distillation.of != "rows" and config.teacher is None:
            yield f"{stage}.distillation: needs a teacher (teacher.model)"


def _unscored_rows(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if each.enabled and each.distillation and each.distillation.of == "rows":
            if each.negatives == 0:
                yield f"{stage}.distillation: of rows needs {stage}.negatives: 1 or more"
            if stage == "supervised" and config.mine.enabled:
                yield "supervised.distillation: of rows needs mine.enabled: false"


def _graded_by_others(config: RunConfig) -> Iterator[str]:
    for stage, each in _stages(config):
        if each.distillation and each.distillation.loss == "m3_kd_loss":
            if each.distillation.of != "rows":
                yield f"{stage}.distillation: loss m3_kd_loss needs of: rows"
            if each.distillation.weight != 1.0:
                yield f"{stage}.distillation: loss m3_kd_loss has no weight"


def _prune_nothing(config: RunConfig) -> Iterator[str]:
    if config.model.base is None and config.prune.when == "before":
        yield "prune.when: before needs model.base; a model from scratch has no layers to drop"


def _flash_in_fp32(config: RunConfig) -> Iterator[str]:
    if config.runtime.attention == "flash_attention_2" and config.runtime.precision == "fp32":
        yield "runtime.attention: flash_attention_2 needs runtime.precision: bf16"


def _unscored_base(config: RunConfig) -> Iterator[str]:
    if not config.evaluate.score_base and any(rule.against == "base" for rule in config.gate.rules):
        yield "gate.rules: a rule against the base needs evaluate.score_base: true"


def _passwords(config: RunConfig) -> Iterator[str]:
    for key, text in _texts("", config.model_dump(mode="json")):
        if without_passwords(text) != text:
            yield f"{key}: holds a password; leave it to the environment"


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text of a config, with the key it stands at."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(f"{key}.{name}".lstrip("."), item)


REFUSALS = (
    Refusal(
        "heads without dense",
        "Mining, the index and the gate work with the dense vector.",
        _no_dense,
    ),
    Refusal(
        "unified objective without a second head",
        "It is the sum of several heads' losses, and their sum teaches them; with one head it is InfoNCE.",
        _nothing_to_unify,
    ),
    Refusal(
        "lexical or multi-vector head from scratch that no stage trains",
        "Only the unified objective has a gradient for them; random weights would be saved and exported.",
        _untrained_heads,
    ),
    Refusal(
        "Matryoshka dims wider than the model",
        "A prefix of a vector cannot be longer than the vector.",
        _wide_dims,
    ),
    Refusal(
        "latent attention whose heads do not divide the width",
        "Each head works on an equal slice of the width.",
        _latent_heads,
    ),
    Refusal(
        "extended positions together with dynamic NTK",
        "A model has learned positions, which are tiled, or rotary ones, which are scaled.",
        _two_kinds_of_positions,
    ),
    Refusal(
        "Matryoshka weights that are not one a dim",
        "Each weight belongs to the dim at its place.",
        _weights_of_dims,
    ),
    Refusal(
        "buckets that do not ascend",
        "A record goes to the first bucket that its longest text fits in.",
        _unordered_buckets,
    ),
    Refusal(
        "no negatives at all",
        "Without in-batch negatives and without a query's own, the loss of each query is 0.",
        _no_negatives,
    ),
    Refusal(
        "symmetric loss without in-batch negatives",
        "A document's negatives are the other queries of the batch.",
        _symmetric_alone,
    ),
    Refusal(
        "distillation without a teacher",
        "There is nobody to learn from.",
        _taught_by_nobody,
    ),
    Refusal(
        "distillation from the rows' scores without the rows' negatives",
        "The scores are those of the negatives in the data: mined ones, or none, have no score.",
        _unscored_rows,
    ),
    Refusal(
        "m3_kd_loss of anything but the rows' scores, or with a weight",
        "It grades a query's own documents, and stands in the place of the objective's loss, not beside it.",
        _graded_by_others,
    ),
    Refusal(
        "pruning before training from scratch",
        "There is no trained model yet whose layers could be measured and dropped.",
        _prune_nothing,
    ),
    Refusal(
        "flash attention 2 in fp32",
        "Its kernels exist for 16-bit numbers only.",
        _flash_in_fp32,
    ),
    Refusal(
        "a gate rule against a base that is not scored",
        "The rule would compare with scores that nobody measured.",
        _unscored_base,
    ),
    Refusal(
        "a password in an address",
        "Addresses stand in plans, logs, reports and the tracker.",
        _passwords,
    ),
)


def refused(config: RunConfig) -> Iterator[str]:
    """What is wrong with a config, in the order of the list."""
    for refusal in REFUSALS:
        yield from refusal.found(config)

"""Stage one: a tokenizer and a backbone when the run starts from scratch, then training on passages."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import TYPE_CHECKING

from embedline.config.data import CorpusSource
from embedline.config.model import ModelConfig
from embedline.config.training import PretrainConfig, RuntimeConfig
from embedline.data.sources import source_name
from embedline.errors import InputError
from embedline.models.machine import attention, prepare
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.training import (
    adapters,
    errors_in_section,
    fit_to_run,
    load_model,
    machine_params,
    passed_through,
    run_spec,
    save_model,
    trains_in_bf16,
)

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.models.language_head import LanguageHead

_OBJECTIVES = {"retromae": "RetroMAE", "mlm": "masked tokens", "mntp": "masked next tokens"}
_TOKENIZER_CHARS = 30_000_000  # characters of text: more change few merges and cost minutes


def run(context: Context) -> StepResult:
    """Pretrain the base, or a new backbone where there is no base; write the output `model`."""
    config = context.step_config.section("pretrain", PretrainConfig)
    from_scratch = context.inputs["model"] is None
    if not config.enabled and not from_scratch:
        return passed_through(context)

    from embedline.models.lengths import require_tokens
    from embedline.training.pretraining import pretrain

    prepare(context.step_config.section("runtime", RuntimeConfig), training=True)
    embedder = _from_scratch(context) if from_scratch else load_model(context)
    tokens = min(config.batch_tokens, config.batch * config.length)
    bf16 = trains_in_bf16(context, embedder, tokens=tokens, length=config.length)
    head = None if from_scratch else _head_of_base(context, embedder)
    chosen = machine_params(embedder, bf16=bf16)
    context.tracker.params({**config.model_dump(), **chosen, "parameters": _parameters(embedder)})
    if config.enabled:
        passages = _passages(context)
        require_tokens(embedder, config.length, "pretrain.length")
        context.tracker.params({"passages": len(passages)})
        # Random weights are trained directly: with adapters they would stay random.
        with errors_in_section("pretrain"), nullcontext() if from_scratch else adapters(context, embedder):
            pretrain(
                embedder,
                passages,
                config,
                seed=context.step_config.config["seed"],
                bf16=bf16,
                checkpoints=context.checkpoints,
                bad_batches=context.bad_batches,
                on_metrics=context.tracker.metrics,
                head=head,
            )
    objective = _OBJECTIVES[config.objective] + (", from the base's own head" if head else "")
    save_model(context, embedder, steps=config.steps if config.enabled else 0, objective=objective)
    work = f"{objective}, {config.steps} steps" if config.enabled else "random weights (pretraining is off)"
    vocabulary = len(embedder.tokenizer)
    return StepResult(
        metrics={"parameters": float(_parameters(embedder)), "vocabulary": float(vocabulary)},
        summary=f"{work}; {_parameters(embedder):,} parameters, {vocabulary:,} tokens in the vocabulary.",
    )


def _head_of_base(context: Context, embedder: Embedder) -> LanguageHead | None:
    """Load the base's own output layer, if its folder has one."""
    from embedline.models.language_head import load_language_head

    model = context.step_config.section("model", ModelConfig)
    return load_language_head(
        context.outside("base"),
        embedder.tokenizer,
        trust_remote_code=model.trust_remote_code,
    )


def _from_scratch(context: Context) -> Embedder:
    """Train a tokenizer on the run's texts, and make a model of random weights for it."""
    from embedline.models.attention import use_attention
    from embedline.models.backbone import new_backbone
    from embedline.models.device import best_device
    from embedline.models.embedder import Embedder
    from embedline.models.tokenizer import train_tokenizer

    model = context.step_config.section("model", ModelConfig)
    tokenizer = train_tokenizer(
        _tokenizer_texts(context),
        model.vocabulary,
        lowercase=model.lowercase,
        max_length=max(512, model.document_length),
    )
    backbone = new_backbone(model.architecture, model.settings, tokenizer, context.step_config.config["seed"])
    use_attention(backbone, attention(context.step_config.section("runtime", RuntimeConfig)))
    return fit_to_run(context, Embedder(backbone, tokenizer, run_spec(context))).to(best_device())


def _tokenizer_texts(context: Context) -> list[str]:
    """Draw a seeded sample of queries, positives and passages, up to a bounded number of characters."""
    from embedline.training.batching.records import read_records

    folder = context.artifact("dataset").path
    texts = _corpus(context, weighted=False)
    for source in read_records(folder / "records.parquet").values():
        for row in source.rows:
            texts += [row.query, *row.positives]
    random.Random(context.step_config.config["seed"]).shuffle(texts)
    chosen, remaining = [], _TOKENIZER_CHARS
    for text in texts:
        remaining -= len(text)
        if remaining < 0:
            break
        chosen.append(text)
    if not chosen:
        raise InputError("there is no text to train a tokenizer on.", where="data")
    return chosen


def _passages(context: Context) -> list[str]:
    """Return the texts to pretrain on: the corpus; where a run has none, its records' positives."""
    from embedline.training.batching.records import read_records

    if texts := _corpus(context):
        return texts
    sources = read_records(context.artifact("dataset").path / "records.parquet").values()
    return list(dict.fromkeys(text for source in sources for row in source.rows for text in row.positives))


def _corpus(context: Context, *, weighted: bool = True) -> list[str]:
    """Return title and text of every passage, a seeded share of them for a source of a weight below 1."""
    import pyarrow.parquet as pq

    corpus = context.step_config.section("data.corpus", list[CorpusSource])
    weights = {source_name(s.name, s.path): s.weight for s in corpus}
    table = pq.read_table(context.artifact("dataset").path / "corpus.parquet").to_pylist()
    generator = random.Random(context.step_config.config["seed"])
    texts: list[str] = []
    for row in table:
        weight = weights.get(row["source"], 1.0) if weighted else 1.0
        copies = int(weight) + (generator.random() < weight % 1)
        texts += [f"{row['title']}\n{row['text']}".strip()] * copies
    return texts


def _parameters(embedder: Embedder) -> int:
    return sum(parameter.numel() for parameter in embedder.backbone.parameters())

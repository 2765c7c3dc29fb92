"""prune_before and prune_after: drop unused tokens and layers of the base or the trained model; heal it.

prune_after makes the candidate, and with section `fusion` fits the weights of its hybrid search.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from embedline.config.model import ModelConfig, PruneConfig, VocabularyConfig
from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.markdown import table
from embedline.models.machine import prepare
from embedline.steps.context import Context, StepResult
from embedline.steps.shared.fusion import fusion_summary, write_fitted
from embedline.steps.shared.training import (
    adapters,
    encodes_in_bf16,
    errors_in_section,
    fit_to_run,
    load_folder,
    load_model,
    passed_through,
    run_spec,
    save_model,
    trains_in_bf16,
)

if TYPE_CHECKING:
    from embedline.models.embedder import Embedder
    from embedline.models.prompts import PromptTable

HELD_OUT = 256  # texts that healing is measured on
MEASURED_ON = 128  # texts that the angular distances are measured on
HEAL_BATCH_TOKENS = 4096


def run(context: Context) -> StepResult:
    """Write the output `model`: the base with the run's spec, pruned or not, or the pruned trained model.

    prune_before has no output when the model is made from scratch. Where prune_after does not prune, it
    passes its input through, or writes it with the run's dims and prompts when no training has read them, or
    when a fusion is fitted.
    """
    before = context.step == "prune_before"
    config = context.step_config.section("prune", PruneConfig)
    now = context.step.removeprefix("prune_")
    layers, tokens = config.when == now, config.vocabulary.when == now
    base = context.step_config.locations.get("base") if before else None
    if before and base is None:
        if layers or tokens:
            raise InputError(
                "a model made from scratch has no layers and no tokens to drop.",
                where="prune.when" if layers else "prune.vocabulary.when",
                fix="Use after.",
            )
        return StepResult(passed_through={"model": None}, summary="From scratch: pretrain makes the model.")
    fuses = context.step_config.config.get("fusion") is not None
    if not before and not (layers or tokens):
        return passed_through(context) if not fuses and _has_run_card(context) else _write_run_card(context)
    prepare(context.step_config.section("runtime", RuntimeConfig), training=True)
    if before:
        embedder = fit_to_run(context, load_folder(context, context.outside("base")))
    else:
        embedder = load_model(context)
    if before and not (layers or tokens):
        save_model(context, embedder, base=context.step_config.pins.get("base"))
        return StepResult(summary="The base model, with the run's pooling and lengths.")
    results = []
    if tokens:  # first: the unpruned model that layers are healed from then has the same token ids
        embedder, result = drop_tokens(context, embedder, config.vocabulary)
        results.append(result)
    if layers:
        embedder, result = prune(context, embedder, config)
        results.append(result)
    result = _joined(results)
    lineage = {"base": context.step_config.pins.get("base")} if before else {}
    save_model(context, embedder, **result.metadata["model"], **lineage)
    _require_saved(context, embedder, "prune.when" if layers else "prune.vocabulary.when")
    return result if before else _with_fusion(context, embedder, result)


def _joined(results: list[StepResult]) -> StepResult:
    """Join the results of dropping tokens and layers; sizes before are those before both."""
    metrics: dict[str, float] = {}
    metadata: dict[str, object] = {}
    for result in results:
        first = {name: metrics[name] for name in metrics if name == "parameters_before"}
        metrics |= result.metrics | first
        metadata |= result.metadata["model"]
    summary = "\n\n".join(result.summary for result in results)
    return StepResult(metrics=metrics, summary=summary, metadata={"model": metadata})


def drop_tokens(
    context: Context, embedder: Embedder, config: VocabularyConfig
) -> tuple[Embedder, StepResult]:
    """Return the model with the tokens that the dataset's records and passages use."""
    from embedline.compress.vocabulary import prune_vocabulary

    pruned, result = prune_vocabulary(
        embedder,
        _dataset_texts(context.artifact("dataset").path),
        sorted(set(embedder.spec.prompts.as_st_prompts().values())),
        min_count=config.min_count,
        same_letters=config.same_letters,
    )
    return pruned, StepResult(
        metrics=result.metrics,
        summary=result.sentence(),
        metadata={"model": {"tokens": result.tokens}},
    )


def _dataset_texts(dataset: Path) -> Iterator[str]:
    """Yield every text of the records, negatives included, and of the passages with their titles."""
    import pyarrow.parquet as pq

    from embedline.data.evaluation_reader import with_title

    with pq.ParquetFile(dataset / "records.parquet") as records:
        for batch in records.iter_batches(columns=["query", "positives", "negatives"]):
            for row in batch.to_pylist():
                yield from (row["query"], *row["positives"], *(row["negatives"] or ()))
    if (dataset / "corpus.parquet").is_file():
        with pq.ParquetFile(dataset / "corpus.parquet") as corpus:
            for batch in corpus.iter_batches(columns=["title", "text"]):
                yield from (with_title(row["title"], row["text"]) for row in batch.to_pylist())


def _require_saved(context: Context, student: Embedder, where: str) -> None:
    """Load the written model and compare its vectors, before it is published."""
    from embedline.compress.layers import CANNOT_PRUNE
    from embedline.models.reload import require_same_after_reload

    require_same_after_reload(
        student,
        context.output("model"),
        where=where,
        fix=CANNOT_PRUNE,
        trust_remote_code=context.step_config.section("model", ModelConfig).trust_remote_code,
    )


def _has_run_card(context: Context) -> bool:
    """Return whether the input model's card has the run's dims, lengths, hybrid weights and prompts."""
    from embedline.models.card import read_spec

    spec = read_spec(context.artifact("model").path)
    return spec is not None and run_spec(context, spec) == spec


def _write_run_card(context: Context) -> StepResult:
    """Write the input model with the run's dims, lengths, hybrid weights and prompts."""
    from embedline.models.lengths import require_dims

    embedder = load_model(context)
    require_dims(embedder)
    save_model(context, embedder)
    result = StepResult(summary="Not pruned. The model has the run's dims and prompts now.")
    return _with_fusion(context, embedder, result)


def _with_fusion(context: Context, embedder: Embedder, result: StepResult) -> StepResult:
    """Write the fitted weights of the run's fusion beside the model; add their table to the summary."""
    if context.step_config.config.get("fusion") is None:
        return result
    prepare(context.step_config.section("runtime", RuntimeConfig))
    fusion = write_fitted(context, embedder, bf16=encodes_in_bf16(context, embedder))
    metrics = {f"fusion_{name}": value for name, value in fusion.scores.items()}
    return replace(
        result, metrics=result.metrics | metrics, summary=f"{result.summary}\n\n{fusion_summary(fusion)}"
    )


def prune(context: Context, teacher: Embedder, config: PruneConfig) -> tuple[Embedder, StepResult]:
    """Return the pruned and healed copy of `teacher`, and its similarity to it before and after healing."""
    from embedline.compress.heal import fidelity, heal
    from embedline.compress.layers import choose_layers, layer_list, layers_to_drop, without_layers
    from embedline.models.attention import use_fp32_attention

    seed = context.step_config.section("seed", int)
    use_fp32_attention(teacher.backbone)  # measurements are in fp32
    texts = sample_texts(
        context.artifact("dataset").path,
        teacher.spec.prompts,
        HELD_OUT + max(MEASURED_ON, config.heal_steps * config.heal_batch),
        seed,
    )
    held_out = texts[: min(HELD_OUT, len(texts) // 4)]
    texts = texts[len(held_out) :]
    layers = len(layer_list(teacher.backbone))
    kept = choose_layers(
        teacher, layers_to_drop(config.drop_share, layers), config.method, texts[:MEASURED_ON]
    )
    student = without_layers(teacher, kept)
    unhealed = healed = fidelity(student, teacher, held_out, batch_tokens=HEAL_BATCH_TOKENS)
    if config.heal_steps:
        with errors_in_section("prune"), adapters(context, student):
            heal(
                student,
                teacher,
                texts,
                steps=config.heal_steps,
                batch=config.heal_batch,
                learning_rate=config.heal_learning_rate,
                warmup=config.heal_warmup,
                batch_tokens=HEAL_BATCH_TOKENS,
                seed=seed,
                bf16=trains_in_bf16(
                    context, student, tokens=HEAL_BATCH_TOKENS, length=student.spec.document_length
                ),
                checkpoints=context.checkpoints,
                bad_batches=context.bad_batches,
                on_metrics=context.tracker.metrics,
            )
        healed = fidelity(student, teacher, held_out, batch_tokens=HEAL_BATCH_TOKENS)
    metrics = {
        "layers_before": float(layers),
        "layers_after": float(len(kept)),
        "parameters_before": float(sum(p.numel() for p in teacher.parameters())),
        "parameters": float(sum(p.numel() for p in student.parameters())),
        "unhealed_cosine": unhealed.cosine,
        "healed_cosine": healed.cosine,
        "unhealed_loss": unhealed.loss,
        "healed_loss": healed.loss,
    }
    dropped = ", ".join(str(i) for i in range(layers) if i not in kept)
    summary = (
        f"Layers {dropped} of {layers} dropped ({config.method}): "
        f"{metrics['parameters_before'] / 1e6:.1f}M to {metrics['parameters'] / 1e6:.1f}M parameters.\n\n"
    )
    summary += table(
        [f"on {len(held_out)} held-out texts", "cosine to the unpruned model", "loss"],
        [
            ("pruned", f"{unhealed.cosine:.4f}", f"{unhealed.loss:.4f}"),
            (f"healed, {config.heal_steps} steps", f"{healed.cosine:.4f}", f"{healed.loss:.4f}"),
        ],
    )
    return student, StepResult(metrics=metrics, summary=summary, metadata={"model": {"kept_layers": kept}})


def sample_texts(dataset: Path, prompts: PromptTable, count: int, seed: int) -> list[str]:
    """Draw up to `count` different texts with their prompts: queries, positives, passages in turn, shuffled.

    Raises:
        InputError: the dataset holds fewer than four texts.
    """
    import numpy as np
    import pyarrow.parquet as pq

    from embedline.data.evaluation_reader import with_title

    queries: list[str] = []
    documents: list[str] = []
    columns = ["query", "positives", "source", "task_type"]
    for row in pq.read_table(dataset / "records.parquet", columns=columns).to_pylist():
        names = {"name": row["source"], "task_type": row["task_type"]}
        queries.append(prompts.prompt("query", **names) + row["query"])
        documents += [prompts.prompt("document", **names) + text for text in row["positives"]]
    passages: list[str] = []
    if (dataset / "corpus.parquet").is_file():
        for row in pq.read_table(dataset / "corpus.parquet", columns=["title", "text", "source"]).to_pylist():
            prompt = prompts.prompt("document", name=row["source"])
            passages.append(prompt + with_title(row["title"], row["text"]))
    generator = np.random.default_rng(seed)
    shuffled = [
        [texts[i] for i in generator.permutation(len(texts))] for texts in (queries, documents, passages)
    ]
    in_turn = (text for text in chain.from_iterable(zip_longest(*shuffled)) if text is not None)
    texts = list(dict.fromkeys(in_turn))[:count]
    if len(texts) < 4:
        raise InputError("holds too few texts to prune with.", where=str(dataset), fix="Add data.")
    return [texts[i] for i in generator.permutation(len(texts))]

"""Every objective's batch, trained by as many processes as there are: `torchrun … shared_batches.py FOLDER`.

The first process leaves in FOLDER, for each case, the loss, the metrics and the summed gradients; every
process leaves what the engine did in it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from embedline.config.model import LatentConfig, Prompt
from embedline.config.training import ContrastiveConfig, DistillationConfig, Optimization, PretrainConfig
from embedline.errors import StepError
from embedline.models.backbone import new_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatch, ContrastiveBatches, tokenised
from embedline.training.batching.passages import PassageBatch
from embedline.training.batching.records import Record
from embedline.training.batching.rows import split_by_source
from embedline.training.batching.words import first_tokens
from embedline.training.contrastive import gradcache
from embedline.training.contrastive import step as contrastive_step
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.step import ContrastiveStep, Temperature
from embedline.training.contrastive.teacher import TaughtRow, Teacher
from embedline.training.contrastive.training import train_contrastive
from embedline.training.engine import processes, token_rows
from embedline.training.engine.trainer import train
from embedline.training.pretraining import PretrainStep, mask_token, objective_module, pretrain

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = ["почта", "принтер", "пароль", "отпуск", "сервер", "экран", "кабель", "договор", "printer", "mail"]
PAIRS = enumerate(zip(WORDS * 6, WORDS[::-1] * 6, strict=True))
TEXTS = [f"{a} {b} {' '.join(WORDS[: i % 9])} {i}" for i, (a, b) in PAIRS]
TOKENIZER = train_tokenizer(TEXTS * 2, 384)


def embedder(*heads: str, seed: int = 1, architecture: str = "bert", **settings: Any) -> Embedder:
    spec = EmbedderSpec(
        "latent" if heads else "mean",
        heads=("dense", *heads),
        latent=LatentConfig(latents=8, heads=2),
        multi_vector_width=16 if heads else None,
        query_length=16,
        document_length=24,
        dims=(16, 8),
        prompts=PromptTable({"default": Prompt(query="q: ", document="d: ")}),
    )
    torch.manual_seed(seed)
    backbone = new_backbone(architecture, {**SIZES, **settings}, TOKENIZER, seed)
    return Embedder(backbone, TOKENIZER, spec)


def records(count: int, *, scored: bool = False, source: str = "faq") -> list[Record]:
    def row(i: int) -> Record:
        others = [] if scored else [TEXTS[i + 13], TEXTS[i + 17] + " или нет"]
        score = float(i % 4) if scored else None
        return Record(str(i), TEXTS[i], [f"ответ {TEXTS[i + 7]}"], others, "short-long", "ru", score, source)

    return [row(i) for i in range(count)]


def taught_rows(rows: list[Record]) -> list[TaughtRow]:
    return [TaughtRow(r.source, r.task_type, r.language, r.query, [*r.positives, *r.negatives]) for r in rows]


def first_rows(
    model: Embedder, rows: list[Record], config: ContrastiveConfig, *, steps: int = 1
) -> ContrastiveBatches:
    """`steps` batches of all the rows."""
    with tempfile.TemporaryDirectory() as folder:
        name = processes.broadcast(folder)
        store = tokenised(model, rows, config, Path(name) / "tokens")
        processes.any_of(False)  # all have opened it
        draws = [Draw("faq", np.arange(len(rows)), 0)] * steps
        return ContrastiveBatches(store, split_by_source(store.columns(), {}), draws)


def _teacher(of: Any, width: int, rows: list[Record]) -> Teacher:
    """A teacher with the vectors of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = Teacher(
            embedder(seed=5),
            ["ru"],
            DistillationConfig(of=of),
            width=width,
            folder=Path(processes.broadcast(folder)),
        )
        teacher.prepare(taught_rows(rows))
        processes.any_of(False)  # all have opened it
        return teacher


def contrastive(
    *heads: str, rows: int = 11, scored: bool = False, taught: str | None = None, **over: Any
) -> Any:
    """Loss, metrics and gradients of one batch."""
    config = ContrastiveConfig(
        **({"negatives": 2, "batch_tokens": 96, "batch": rows, "resident_tokens": 100} | over)
    )
    torch.manual_seed(3)
    model = embedder(*heads)
    cache = GradCache(model, batch_tokens=config.batch_tokens, resident_tokens=config.resident_tokens)
    temperature = Temperature(config.temperature) if config.learnable_temperature else None
    teacher = None
    if taught:
        teacher = _teacher(taught, model.width, records(rows, scored=scored))
    step = ContrastiveStep(cache, config, temperature, teacher)
    batch = first_rows(model, records(rows, scored=scored), config)[0]
    module = nn.ModuleDict({"embedder": model, **({"temperature": temperature} if temperature else {})})
    return summed(module, lambda: step(module, batch))


def pretraining(objective: str, **over: Any) -> Any:
    config = PretrainConfig(objective=objective, batch=13, length=24, batch_tokens=90, **over)
    model = embedder(architecture="llama" if objective == "mntp" else "bert")
    torch.manual_seed(3)
    module = objective_module(model, TEXTS, config)
    if objective == "retromae":
        module.decoder_mask = 0.0  # its sample is drawn for a chunk, and would differ
    step = PretrainStep(config, mask_id=mask_token(TOKENIZER), bf16=False)
    words = first_tokens(TOKENIZER, TEXTS[:13], max_length=24) if config.whole_words else None
    batch = PassageBatch("corpus", list(range(13)), model.tokenize(TEXTS[:13], max_length=24), words)
    torch.manual_seed(4)
    return summed(module, lambda: step(module, batch))


def three_texts() -> Any:
    """With four processes, one of them has nothing to encode."""
    model = embedder("lexical", "multi_vector")
    ids = model.tokenize(TEXTS[:3], max_length=24)

    def loss(encoded: Any) -> tuple[Tensor, dict[str, float]]:
        parts = [part.square().sum() for part in encoded]
        return torch.stack(parts).sum() + encoded.dense[0] @ encoded.dense[1], {}

    return summed(model, lambda: GradCache(model, batch_tokens=64).step(ids, loss))


def summed(module: nn.Module, step: Callable[[], tuple[Tensor, dict[str, float]]]) -> Any:
    loss, metrics = step()
    processes.sum_gradients(module)
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return float(loss), {name: float(value) for name, value in metrics.items()}, gradients


UNIFIED = ("lexical", "multi_vector")
CASES: dict[str, Callable[[], Any]] = {
    "hard negatives": lambda: contrastive(),
    "symmetric, matryoshka": lambda: contrastive(symmetric=True, matryoshka=True),
    "own negatives only": lambda: contrastive(in_batch_negatives=False, false_negative_margin=None),
    "learnt temperature": lambda: contrastive(learnable_temperature=True),
    "unified": lambda: contrastive(*UNIFIED, objective="unified"),
    "unified, one head less": lambda: contrastive("lexical", objective="unified"),
    "unified, learnt temperature": lambda: contrastive(
        *UNIFIED, objective="unified", learnable_temperature=True, matryoshka=True
    ),
    "unused heads": lambda: contrastive(*UNIFIED),
    "cosent": lambda: contrastive(scored=True, learnable_temperature=True),
    "taught scores": lambda: contrastive(taught="scores"),
    "taught vectors": lambda: contrastive(taught="vectors"),
    "two rows": lambda: contrastive(rows=2),
    "three texts": three_texts,
    "mlm": lambda: pretraining("mlm"),
    "mntp": lambda: pretraining("mntp"),
    "retromae": lambda: pretraining("retromae", bag_of_words=0.5),
    "retromae of whole words": lambda: pretraining("retromae", whole_words=True, hidden_as="bert"),
    "dupmae": lambda: pretraining("retromae", bag_of_words=0.5, bag_of_words_from="tokens"),
}


class KilledError(Exception):
    """Stands for a kill."""


def engine(folder: Path) -> dict[str, Any]:
    """What the engine does with all processes: whole trainings, a resume, a lack of memory, bad steps."""
    done: dict[str, Any] = {}

    def contrastively(name: str, *, die_at: int | None = None) -> Embedder:
        model, logged = embedder(seed=10 + processes.rank()), {}  # the first one's weights must count
        config = ContrastiveConfig(
            steps=6,
            batch=8,
            negatives=1,
            batch_tokens=96,
            checkpoint_every=2,
            log_every=2,
            learning_rate=1e-3,
        )
        real = ContrastiveStep.__call__

        def dying(self: Any, module: nn.Module, batch: ContrastiveBatch) -> Any:
            if batch.step == die_at:
                raise KilledError
            return real(self, module, batch)

        ContrastiveStep.__call__ = dying  # type: ignore[method-assign]
        try:
            train_contrastive(
                model,
                records(20),
                config,
                weights={},
                seed=7,
                bf16=False,
                checkpoints=folder / name,
                on_metrics=lambda values, at: logged.update({at: values}),
            )
        except KilledError:
            pass
        finally:
            ContrastiveStep.__call__ = real  # type: ignore[method-assign]
        done[f"{name} logged"], done[f"{name} curves"] = list(logged), list(logged.values())
        return model

    token_rows._MIN_NUMBERS = 0  # every table is trained by rows, as a large one is
    whole = contrastively("whole")
    contrastively("killed", die_at=5)
    resumed = contrastively("killed")
    done["resumed is whole"] = all(
        torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True)
    )
    if processes.is_first():
        save_file({name: p.detach() for name, p in whole.named_parameters()}, folder / "whole.safetensors")

    model = embedder()
    config = PretrainConfig(objective="mlm", steps=4, batch=8, length=24, batch_tokens=96, checkpoint_every=2)
    pretrain(
        model, TEXTS, config, seed=1, bf16=False, checkpoints=folder / "pretrain", on_metrics=lambda *_: None
    )
    if processes.is_first():
        save_file({n: p.detach() for n, p in model.named_parameters()}, folder / "pretrained.safetensors")

    last = processes.world_size() - 1
    done["budget"] = short_of_memory(folder / "memory", last)
    done["bad"] = bad_step(folder / "bad", last)
    done["different"] = different_batches()
    done["dropped"] = dropped_vectors()
    return done


def dropped_vectors() -> list[list[float]]:
    """Vectors of one text, encoded four times with dropout, in any of the processes."""
    model, seen = embedder(hidden_dropout_prob=0.5).train(), list[Tensor]()
    ids = model.tokenize([TEXTS[0]] * 4, max_length=24)

    def loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
        seen.append(vectors.detach().clone())
        return vectors.square().sum(), {}

    torch.manual_seed(3)
    GradCache(model, batch_tokens=64).step(ids, loss)
    found: list[list[float]] = seen[0].tolist()
    return found


def short_of_memory(folder: Path, which: int) -> dict[str, list[Any]]:
    """One process alone runs out of memory in one place of a step; all halve, and go on as with that budget.

    By place: the last budget, those that chunks were encoded with, and whether the weights are the same.
    """
    places = {
        "objective": (ContrastiveStep, "_objective"),
        "first pass": (GradCache, "_encode"),
        "gathering": (gradcache, "_filled"),
        "loss": (contrastive_step, "info_nce"),
        "second pass": (GradCache, "_backward"),
    }
    expected, _, _ = trained_with(folder / "expected", 64)
    found: dict[str, list[Any]] = {}
    for name, (owner, attribute) in places.items():
        real, cache = getattr(owner, attribute), []

        def short(*given: Any, real: Any = real, cache: list[Any] = cache, **named: Any) -> Any:
            if processes.rank() == which and cache[0].budget.chunk > 64:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(*given, **named)

        setattr(owner, attribute, short)
        try:
            weights, budget, seen = trained_with(folder / name, 256, cache)
        finally:
            setattr(owner, attribute, real)
        same = all(torch.equal(*pair) for pair in zip(weights, expected, strict=True))
        found[name] = [budget, seen, same]
    return found


def trained_with(
    folder: Path, batch_tokens: int, made: list[Any] | None = None
) -> tuple[list[Tensor], int, list[int]]:
    """Weights after three steps with dropout, the last budget, and those that chunks were encoded with."""
    model = embedder(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    cache = GradCache(model, batch_tokens=batch_tokens)
    (made if made is not None else []).append(cache)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda *_: seen.append(cache.budget.chunk))
    config = ContrastiveConfig(steps=3, batch=8, learning_rate=1e-3)
    train(
        model,
        first_rows(model, records(8), config, steps=3),
        ContrastiveStep(cache, config),
        config,
        checkpoints=folder,
        seed=0,
        on_metrics=lambda *_: None,
        budget=cache.budget,
    )
    return [p.detach() for p in model.parameters()], cache.budget.chunk, seen


@dataclass(frozen=True)
class NumberedBatch:
    number: int
    source: str = "faq"


def bad_step(folder: Path, which: int) -> list[Any]:
    """One process's gradient is broken: the step is skipped by all, then all fail."""
    net = nn.Linear(4, 4)

    def step(module: nn.Module, batch: NumberedBatch) -> tuple[Tensor, dict[str, float]]:
        loss = module(torch.ones(4)).square().sum()
        loss.backward()
        if batch.number in {1, 2} and processes.rank() == which:
            module.weight.grad[0, 0] = torch.nan
        return loss.detach(), {}

    batches = [NumberedBatch(i) for i in range(4)]
    try:
        train(
            net,
            batches,
            step,
            Optimization(steps=4, max_bad_steps=1),
            checkpoints=folder,
            seed=0,
            on_metrics=lambda *_: None,
        )
    except StepError as error:
        return [str(error), budgetless(net)]
    return ["no error", budgetless(net)]


def budgetless(net: nn.Linear) -> float:
    return float(net.weight.detach().sum())


def different_batches() -> str:
    ids = [[1, 2, 3], [4, 5], [6, 7 + processes.rank()]]
    try:
        processes.require_same_batch(processes.share_of([3, 2, 2]), ids)
    except StepError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    import os

    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name)
    found = {name: case() for name, case in CASES.items()}
    if processes.is_first():
        tensors = {f"{case}/{name}": g for case, (_, _, grads) in found.items() for name, g in grads.items()}
        save_file(tensors, folder / "gradients.safetensors")
        metrics = {case: {"loss": loss, **values} for case, (loss, values, _) in found.items()}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    done = engine(folder)
    (folder / f"engine-{processes.rank()}.json").write_text(json.dumps(done))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))

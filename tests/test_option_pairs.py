"""Every pair of options trains, is saved, loaded and exported, or is refused for a reason on the list."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from embedline.config.load import validate_config
from embedline.config.refusals import REFUSALS
from embedline.config.schema import RunConfig
from embedline.errors import InputError
from embedline.export.onnx import export_onnx
from embedline.models.backbone import new_backbone, prepare_backbone
from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.folder import load_embedder, save_embedder, spec_from_config
from embedline.models.prompts import PromptTable
from embedline.models.tokenizer import train_tokenizer
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatches, tokenised
from embedline.training.batching.passages import PassageBatch
from embedline.training.batching.records import Record
from embedline.training.batching.rows import split_by_source
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.contrastive.step import ContrastiveStep
from embedline.training.contrastive.teacher import TaughtRow, Teacher
from embedline.training.pretraining import PretrainStep, objective_module

Row = tuple[str, ...]

OPTIONS: dict[str, tuple[str, ...]] = {
    "objective": (
        *("retromae", "mlm", "mntp", "infonce", "cosent", "unified"),
        *("infonce+scores", "infonce+vectors", "infonce+kl_div", "infonce+m3_kd_loss"),  # and a teacher
    ),
    "pooling": ("mean", "cls", "last", "latent", "mcls"),
    "heads": ("dense", "dense+lexical", "dense+multi_vector", "dense+lexical+multi_vector"),
    "backbone": ("encoder", "decoder"),
    "matryoshka": ("full width", "matryoshka"),
    "instructions": ("bare", "instructed"),
    "precision": ("fp32", "bf16"),
}
ARCHITECTURES = {"encoder": "modernbert", "decoder": "llama"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PRETRAINING = ("retromae", "mlm", "mntp")
TEXTS = [
    "как настроить почту на телефоне",
    "the printer does not answer",
    "сбросьте пароль в личном кабинете и войдите заново",
    "reinstall the driver and print a test page",
    "где взять отпускной лист",
    "ask the personnel department",
    "договор подписывают обе стороны",
    "the server is down since noon",
]


def values_of(row: Row) -> dict[str, Any]:
    """A run's settings in which the row's options stand."""
    chosen = dict(zip(OPTIONS, row, strict=True))
    heads, (objective, _, taught) = chosen["heads"].split("+"), chosen["objective"].partition("+")
    nested = chosen["matryoshka"] == "matryoshka"
    stage = {"batch": 8, "batch_tokens": 64, "matryoshka": nested}
    mine = stage | {"objective": "unified" if objective == "unified" else "infonce"}
    if taught in ("kl_div", "m3_kd_loss"):  # by the scores that the rows bring for their own documents
        mine |= {"distillation": {"of": "rows", "loss": taught}, "negatives": 1}
    elif taught:
        mine |= {"distillation": {"of": taught, "weight": 10.0}}
    # Whatever this stage does, another one trains the heads.
    later = stage | {"objective": "unified" if len(heads) > 1 else "infonce"}
    return {
        "name": "pairs",
        "data": {"sources": [{"path": "faq.jsonl"}]},
        "model": {
            "architecture": ARCHITECTURES[chosen["backbone"]],
            "settings": SIZES,
            "vocabulary": 384,
            "pooling": chosen["pooling"],
            "latent": {"latents": 4, "heads": 2},
            "mcls_every": 8,
            "layer_norm": nested,
            "heads": heads,
            "multi_vector_width": 16,
            "query_length": 24,
            "document_length": 24,
            "dims": [16, 8] if nested else [],
        },
        "prompts": {"faq": {"instruct": "answer"}} if chosen["instructions"] == "instructed" else {},
        "pretrain": {"objective": objective if objective in PRETRAINING else "retromae", "batch_tokens": 64}
        | {"length": 24},
        "teacher": {"model": "another"} if taught in ("scores", "vectors") else None,
        "unsupervised": mine,
        "supervised": later,
        "runtime": {"precision": chosen["precision"]},
    }


def refusal(row: Row) -> str | None:
    """Return the message that refuses a row, or None."""
    try:
        validate_config(values_of(row), where="row")
    except InputError as error:
        return str(error)
    return None


def pairs_of(row: Row) -> set[tuple[int, str, int, str]]:
    return {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)}


def all_pairs(allowed: list[Row], columns: slice = slice(None)) -> list[Row]:
    """Few rows in which every pair of the allowed ones stands: each time the one with most new pairs."""
    missing = set().union(*(pairs_of(row[columns]) for row in allowed))
    found: list[Row] = []
    while missing:
        best = max(allowed, key=lambda row: len(pairs_of(row[columns]) & missing))
        found.append(best)
        missing -= pairs_of(best[columns])
    return found


# Only objective and heads can be at odds; validation itself says so below for whole rows.
ROWS = list(product(*OPTIONS.values()))
AT_ODDS = [row for row in ROWS if row[0] == "unified" and row[2] == "dense"]
CHOSEN = all_pairs([row for row in ROWS if row not in set(AT_ODDS)])


def test_every_pair_is_tested_or_refused_for_a_listed_reason() -> None:
    covered = set().union(*map(pairs_of, CHOSEN))
    left = set().union(*map(pairs_of, ROWS)) - covered
    assert {(one, other) for _, one, _, other in left} == {("unified", "dense")}
    assert all(refusal(row) is None for row in CHOSEN)
    reasons = {entry.name: entry for entry in REFUSALS}
    entry = reasons["unified objective without a second head"]
    for row in AT_ODDS:
        message = refusal(row)
        assert message is not None
        assert "unified needs lexical or multi_vector among model.heads" in message
    assert entry.reason


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS * 3, 384)


def make(config: RunConfig, tokenizer: Any, seed: int | None = None) -> Embedder:
    model = config.model
    backbone = new_backbone(
        model.architecture, model.settings, tokenizer, config.seed if seed is None else seed
    )
    prepare_backbone(backbone, tokenizer, model)
    return Embedder(backbone, tokenizer, spec_from_config(model, PromptTable(config.prompts)))


def record(i: int, objective: str) -> Record:
    """A query whose answer is its mirror image, with what its objective learns from."""
    score = float(i % 3) if objective == "cosent" else None
    told = ([2.0], [float(i % 3)]) if objective.endswith(("kl_div", "m3_kd_loss")) else (None, None)
    negatives = [f"{i} {TEXTS[i - 1]}"] if told[0] else []
    return Record(
        str(i), TEXTS[i], [f"{i} {TEXTS[i][::-1]}"], negatives, "short-long", "ru", score, "", *told
    )


def losses(
    embedder: Embedder, config: RunConfig, objective: str, steps: int = 12
) -> Iterator[tuple[float, dict[str, float]]]:
    """Of a fixed batch, the same tokens hidden at every step; with what the step tells about its parts."""
    bf16 = config.runtime.precision == "bf16"
    module: torch.nn.Module = embedder
    step: Any
    if objective in PRETRAINING:
        torch.manual_seed(0)
        module = objective_module(embedder, TEXTS, config.pretrain)
        step = PretrainStep(config.pretrain, mask_id=embedder.tokenizer.mask_token_id, bf16=bf16)
        batch: Any = PassageBatch("corpus", list(range(len(TEXTS))), embedder.tokenize(TEXTS, max_length=24))
    else:
        stage = config.unsupervised
        rows = [replace(record(i, objective), source="faq") for i in range(len(TEXTS))]
        with tempfile.TemporaryDirectory() as folder:
            store = tokenised(embedder, rows, stage, Path(folder) / "tokens")
            sources = split_by_source(store.columns(), {})
            batch = ContrastiveBatches(store, sources, [Draw("faq", np.arange(len(rows)), 0)])[0]
        teacher = None
        if config.teacher and stage.distillation:
            other = make(config, embedder.tokenizer, seed=config.seed + 1).eval()
            other = other.with_spec(EmbedderSpec("mean"))  # untrained, it tells texts apart by their words
            with tempfile.TemporaryDirectory() as folder:
                teacher = Teacher(
                    other, ["ru"], stage.distillation, width=embedder.width, folder=Path(folder)
                )
                teacher.prepare(
                    TaughtRow("faq", row.task_type, row.language, row.query, row.positives + row.negatives)
                    for row in rows
                )
        step = ContrastiveStep(GradCache(embedder, batch_tokens=64, bf16=bf16), stage, teacher=teacher)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for _ in range(steps):
        torch.manual_seed(1)
        optimizer.zero_grad()
        loss, metrics = step(module.train(), batch)
        optimizer.step()
        yield float(loss), metrics


def outputs(embedder: Embedder, texts: list[str]) -> list[np.ndarray]:
    """Unit dense vectors, and what the other heads give."""
    inputs = embedder.eval().pad(embedder.tokenize(texts, max_length=24))
    with torch.no_grad():
        found = embedder.represent(**inputs)
    others = [part.numpy() for part in (found.lexical, found.tokens) if part is not None]
    return [F.normalize(found.dense, dim=-1).numpy(), *others]


def require_what_is_trained(
    embedder: Embedder,
    before: dict[str, torch.Tensor],
    config: RunConfig,
    objective: str,
    told: tuple[dict[str, float], ...],
) -> None:
    """Each part that the objective reads has moved, each head's own loss has fallen; nothing else moved."""
    moved = {name for name, weight in embedder.state_dict().items() if not torch.equal(weight, before[name])}
    assert any(name.startswith("backbone.") for name in moved)
    heads = [head for head in config.model.heads if head != "dense"]
    for head in heads:
        assert any(name.startswith(f"heads.{head}.") for name in moved) is (objective == "unified"), head
    if objective == "unified":
        for head in ("dense", *heads):
            assert told[-1][f"{head}_loss"] < told[0][f"{head}_loss"], head
    pools = objective not in ("mlm", "mntp")  # those ask the token states alone
    if config.model.pooling == "latent":
        parts = {name for name in before if name.startswith("latent_attention.")}
        assert (parts <= moved) if pools else not parts & moved


@pytest.mark.parametrize("row", CHOSEN, ids="-".join)
def test_a_row_trains_and_loads_from_its_folder(
    row: Row, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = validate_config(values_of(row), where="row")
    embedder = make(config, tokenizer)
    before = {name: weight.clone() for name, weight in embedder.state_dict().items()}
    found, told = zip(*losses(embedder, config, row[0]), strict=True)
    assert all(np.isfinite(found))
    assert found[-1] < found[0]
    if row[0] in ("infonce+scores", "infonce+vectors"):
        assert told[-1]["distillation_loss"] < told[0]["distillation_loss"]
    require_what_is_trained(embedder, before, config, row[0], told)
    save_embedder(embedder, tmp_path)
    loaded = load_embedder(tmp_path)
    assert loaded.spec == embedder.spec
    prompt = loaded.spec.prompts.prompt("query", name="faq")
    assert bool(prompt) == (row[5] == "instructed")
    texts = [prompt + text for text in TEXTS]
    for one, other in zip(outputs(loaded, texts), outputs(embedder, texts), strict=True):
        assert np.array_equal(one, other)  # bit for bit


# Pooling, heads and backbone make the graph, the rest only its weights; an export takes seconds.
GRAPHS = all_pairs(CHOSEN, slice(1, 4))


@pytest.mark.slow
@pytest.mark.parametrize("row", GRAPHS, ids="-".join)
def test_a_row_is_exported_with_all_its_heads(
    row: Row, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = validate_config(values_of(row), where="row")
    embedder = make(config, tokenizer)
    assert all(np.isfinite(loss) for loss, _ in losses(embedder, config, row[0], steps=3))
    texts = [embedder.spec.prompts.prompt("query", name="faq") + text for text in TEXTS]
    expected = outputs(embedder, texts)
    session = onnxruntime.InferenceSession(export_onnx(embedder, tmp_path, config.export.opset))
    inputs = embedder.pad(embedder.tokenize(texts, max_length=24))
    exported = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    for one, other in zip(exported, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 * max(1.0, np.abs(other).max()))

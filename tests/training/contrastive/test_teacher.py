"""Distillation from a teacher beside the labels."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from embedline.config.training import ContrastiveConfig, DistillationConfig
from embedline.errors import InputError
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatch, ContrastiveBatches, tokenised
from embedline.training.batching.records import Record
from embedline.training.batching.rows import split_by_source
from embedline.training.contrastive.teacher import Teacher
from embedline.training.contrastive.training import train_contrastive


def config(of: str, **values: Any) -> ContrastiveConfig:
    base: dict[str, Any] = {
        "batch": 4,
        "steps": 30,
        "batch_tokens": 256,
        "log_every": 5,
        "learning_rate": 3e-3,
    }
    return ContrastiveConfig(**(base | values), distillation=DistillationConfig(of=of, weight=100.0))  # type: ignore[arg-type]


def rows_of(record, texts: list[str], language: str, task_type: str = "short-long") -> list[Record]:
    rows = [record(texts[i], [texts[(i + 1) % 8]], [texts[(i + 3) % 8]], task_type) for i in range(6)]
    return [replace(row, language=language, source="faq") for row in rows]


def batch_of(embedder: Any, rows: list[Record], values: ContrastiveConfig) -> ContrastiveBatch:
    with tempfile.TemporaryDirectory() as folder:
        store = tokenised(embedder, rows, values, Path(folder) / "tokens")
        batch: dict[str, Any] = ContrastiveBatches(
            store, split_by_source(store.columns(), {}), [Draw("faq", np.arange(4), 0)]
        )[0]
        return batch


def test_scores_are_compared_as_rankings_of_the_batch(make_embedder, record, texts: list[str]) -> None:
    """KL by its definition in float64, each side's vectors encoded one by one."""
    values = config("scores", negatives=1)
    teacher, student = make_embedder(seed=2).eval(), make_embedder(hidden_size=16).eval()
    source = rows_of(record, texts, "en")
    batch = batch_of(student, source, values)
    teacher_loss = Teacher(teacher, ["en"], values.distillation, width=16).teacher_loss(batch)  # type: ignore[arg-type]
    assert teacher_loss is not None
    vectors = torch.randn(len(batch.ids), 16)

    def encoded(text: str, side: str) -> np.ndarray:
        prompt = teacher.spec.prompts.prompt(side, name="faq", task_type="short-long")
        length = teacher.spec.query_length if side == "query" else teacher.spec.document_length
        return teacher.encode([text], prompt=prompt, max_length=length)[0].astype(np.float64)

    unit = F.normalize(vectors.double(), dim=-1).numpy()
    total = 0.0
    for i, query in enumerate(batch.query_texts):
        expected = (
            np.array([encoded(query, "query") @ encoded(t, "document") for t in batch.document_texts]) / 0.05
        )
        found = unit[i] @ unit[4:].T / 0.05
        p, q = np.exp(expected - expected.max()), np.exp(found - found.max())
        p, q = p / p.sum(), q / q.sum()
        total += float((p * np.log(p / q)).sum())
    assert float(teacher_loss(vectors)) == pytest.approx(total / 4, rel=1e-4)


def test_when_memory_runs_out_the_teachers_chunks_get_smaller_too(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = config("scores", negatives=1, steps=2)
    teacher, student = make_embedder(seed=2).eval(), make_embedder()
    sizes: list[int] = []

    def encoding(module: Any, given: Any, named: dict[str, torch.Tensor]) -> None:
        sizes.append(named["input_ids"].numel())
        if sizes[-1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")

    teacher.backbone.register_forward_pre_hook(encoding, with_kwargs=True)
    train_contrastive(
        student,
        rows_of(record, texts, "en"),
        values,
        weights={},
        seed=0,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda *_: None,
        teacher=Teacher(teacher, ["en"], values.distillation, width=32),  # type: ignore[arg-type]
    )
    assert max(sizes) > 100 >= max(sizes[-4:])


@pytest.mark.parametrize(
    ("language", "task_type", "taught"),
    [
        ("en", "short-long", (True, True)),
        ("ru", "short-long", (False, False)),
        ("en-ru", "short-long", (True, False)),
        ("ru-en", "short-long", (False, True)),
        ("en-ru", "bitext", (True, True)),
        ("ru-en", "bitext", (True, True)),
    ],
)
def test_vectors_are_learnt_of_known_languages_and_translations(
    make_embedder, record, texts: list[str], language: str, task_type: str, taught: tuple[bool, bool]
) -> None:
    values = config("vectors")
    teacher = make_embedder(seed=2).eval()
    batch = batch_of(teacher, rows_of(record, texts, language, task_type), values)
    teacher_loss = Teacher(teacher, ["en"], values.distillation, width=32).teacher_loss(batch)  # type: ignore[arg-type]
    if taught == (False, False):
        assert teacher_loss is None
        return
    assert teacher_loss is not None
    vectors = torch.randn(len(batch.ids), 32, requires_grad=True)
    teacher_loss(vectors).backward()
    assert vectors.grad is not None
    moved = vectors.grad.abs().sum(1) > 0
    for part, known in zip((moved[:4], moved[4:]), taught, strict=True):
        assert part.all() if known else not part.any()
    if task_type == "bitext":  # both sides have the vector of the one that the teacher knows
        side, words = (
            ("query", batch.query_texts) if language == "en-ru" else ("document", batch.document_texts)
        )
        prompt = teacher.spec.prompts.prompt(side, name="faq", task_type="bitext")
        expected = torch.from_numpy(teacher.encode(words, prompt=prompt))
        assert float(teacher_loss(torch.cat([expected, expected]))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("of", ["scores", "vectors"])
@pytest.mark.parametrize("objective", ["infonce", "unified"])
def test_a_taught_student_comes_nearer_to_its_teacher(
    make_embedder, record, texts: list[str], tmp_path: Path, of: str, objective: str
) -> None:
    heads = ("dense", "lexical") if objective == "unified" else ("dense",)
    values = config(of, objective=objective)
    teacher, student = make_embedder(seed=2).eval(), make_embedder(heads=heads)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    logged: list[dict[str, float]] = []
    train_contrastive(
        student,
        rows_of(record, texts, "en"),
        values,
        weights={},
        seed=3,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda metrics, _: logged.append(metrics),
        teacher=Teacher(teacher, ["en"], values.distillation, width=32),  # type: ignore[arg-type]
    )
    assert logged[-1]["distillation_loss"] < 0.7 * logged[0]["distillation_loss"]
    for name, weight in teacher.state_dict().items():
        assert torch.equal(weight, before[name])


def test_vectors_of_another_width_are_refused(make_embedder) -> None:
    with pytest.raises(InputError, match=r"teacher\.model.*distillation\.of"):
        Teacher(make_embedder(), ["en"], DistillationConfig(of="vectors"), width=16)

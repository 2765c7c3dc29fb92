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

from embedline.config.model import Prompt
from embedline.config.training import ContrastiveConfig, DistillationConfig
from embedline.models.prompts import PromptTable
from embedline.training.batching.batches import Draw
from embedline.training.batching.pairs import ContrastiveBatch, ContrastiveBatches, tokenised
from embedline.training.batching.records import Record
from embedline.training.batching.rows import split_by_source
from embedline.training.contrastive import teacher as teaching
from embedline.training.contrastive.teacher import TaughtRow, Teacher
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


def prepared(folder: Path, model: Any, values: ContrastiveConfig, rows: list[Record], **more: Any) -> Teacher:
    assert values.distillation
    teacher = Teacher(model, ["en"], values.distillation, folder=folder, **more)
    teacher.prepare(
        TaughtRow(r.source, r.task_type, r.language, r.query, [*r.positives, *r.negatives]) for r in rows
    )
    return teacher


def test_scores_are_compared_as_rankings_of_the_batch(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    """KL by its definition in float64, each side's vectors encoded one by one."""
    values = config("scores", negatives=1)
    teacher, student = make_embedder(seed=2).eval(), make_embedder(hidden_size=16).eval()
    source = rows_of(record, texts, "en")
    batch = batch_of(student, source, values)
    teacher_loss = prepared(tmp_path, teacher, values, source, width=16).teacher_loss(batch)
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
    assert float(teacher_loss(vectors)) == pytest.approx(total / 4, rel=2e-3)  # float16 on the disk


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
        teacher=Teacher(teacher, ["en"], values.distillation, width=32, folder=tmp_path / "t"),  # type: ignore[arg-type]
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
    make_embedder, record, texts: list[str], tmp_path: Path, language: str, task_type: str, taught: tuple
) -> None:
    values = config("vectors")
    teacher = make_embedder(seed=2).eval()
    rows = rows_of(record, texts, language, task_type)
    batch = batch_of(teacher, rows, values)
    teacher_loss = prepared(tmp_path, teacher, values, rows, width=32).teacher_loss(batch)
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
    # At 3e-3, with a weight of 100, the lexical head collapses, which stops a training.
    values = config(of, objective=objective, **({"learning_rate": 1e-3} if "lexical" in heads else {}))
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
        teacher=Teacher(teacher, ["en"], values.distillation, width=32, folder=tmp_path / "t"),  # type: ignore[arg-type]
    )
    assert logged[-1]["distillation_loss"] < 0.7 * logged[0]["distillation_loss"]
    for name, weight in teacher.state_dict().items():
        assert torch.equal(weight, before[name])


def test_vectors_of_another_width_are_learnt_through_a_projection(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    """The cosine that is learnt rises; the student keeps its width and has no projection."""
    values = config("vectors", steps=40)
    student, logged = make_embedder(hidden_size=16), []
    parameters = sum(p.numel() for p in student.parameters())
    teacher = Teacher(make_embedder(seed=2).eval(), ["en"], values.distillation, width=16, folder=tmp_path)  # type: ignore[arg-type]
    assert teacher.projection is not None
    first = teacher.projection.weight.detach().clone()
    assert torch.allclose(first.T @ first, torch.eye(16), atol=1e-5)
    train_contrastive(
        student,
        rows_of(record, texts, "en"),
        values,
        weights={},
        seed=3,
        bf16=False,
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda metrics, _: logged.append(metrics),
        teacher=teacher,
    )
    assert logged[-1]["distillation_loss"] < 0.5 * logged[0]["distillation_loss"]
    assert not torch.equal(teacher.projection.weight, first)
    assert sum(p.numel() for p in student.parameters()) == parameters


class Counting:
    """Counts the texts that an embedder encodes, and stops it after some."""

    def __init__(self, model: Any, most: int = 10**9) -> None:
        self.model, self.encoded, self.most = model, 0, most
        self.spec, self.device, self.width = model.spec, model.device, model.width

    def encode(self, texts: list[str], **about: Any) -> np.ndarray:
        self.encoded += len(texts)
        if self.encoded > self.most:
            raise KeyboardInterrupt
        vectors: np.ndarray = self.model.encode(texts, **about)
        return vectors


def test_vectors_are_computed_once_and_found_by_other_trainings(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "SHARD", 3)
    values, rows, model = config("vectors"), rows_of(record, texts, "en"), make_embedder(seed=2).eval()
    killed = Counting(model, most=5)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, killed, values, rows, width=32)
    resumed = Counting(model)
    teacher = prepared(tmp_path, resumed, values, rows, width=32)
    distinct = {r.query for r in rows} | {(t, "document") for r in rows for t in (*r.positives, *r.negatives)}
    assert resumed.encoded == len(distinct) - 3 == len(teacher.vectors) - 3  # one shard was written before
    again = Counting(model)
    prepared(tmp_path, again, values, rows[1:4], width=32)
    assert again.encoded == 0
    changed = Counting(model)  # another prompt: other vectors
    table = PromptTable({"default": Prompt(query="q: ", document="d: ")})
    changed.spec = replace(model.spec, prompts=table)
    prepared(tmp_path, changed, values, rows, width=32)
    assert changed.encoded == len(distinct)


def test_training_does_not_run_the_teacher(make_embedder, record, texts: list[str], tmp_path: Path) -> None:
    values, model = config("scores", negatives=1, steps=4), Counting(make_embedder(seed=2).eval())
    rows = rows_of(record, texts, "en")
    prepared(tmp_path / "t", model, values, rows, width=32)
    counts = []
    train_contrastive(
        make_embedder(),
        rows,
        values,
        weights={},
        seed=0,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda *_: counts.append(model.encoded),
        teacher=(teacher := Teacher(model, ["en"], values.distillation, width=32, folder=tmp_path / "t")),  # type: ignore[arg-type]
    )
    assert counts
    assert set(counts) == {len(teacher.vectors)}
    assert teacher.model is None


def test_a_projection_is_resumed_with_the_training(
    make_embedder, record, texts: list[str], tmp_path: Path
) -> None:
    values = config("vectors", steps=12, checkpoint_every=3, log_every=3)
    rows = rows_of(record, texts, "en")

    def trained(folder: Path, stop_at: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
        student = make_embedder(hidden_size=16)
        teacher = Teacher(
            make_embedder(seed=2).eval(), ["en"], values.distillation, width=16, folder=tmp_path
        )  # type: ignore[arg-type]

        def on_metrics(_: Any, step: int) -> None:
            if step >= stop_at:
                raise KeyboardInterrupt

        train_contrastive(
            student,
            rows,
            values,
            weights={},
            seed=3,
            bf16=False,
            checkpoints=folder,
            on_metrics=on_metrics,
            teacher=teacher,
        )
        assert teacher.projection is not None
        return torch.cat([p.detach().flatten() for p in student.parameters()]), teacher.projection.weight

    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", stop_at=9)
    resumed = trained(tmp_path / "killed")
    assert torch.equal(whole[0], resumed[0])
    assert torch.equal(whole[1], resumed[1])

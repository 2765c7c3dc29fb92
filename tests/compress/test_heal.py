from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from embedline.compress.heal import _HealStep, fidelity, heal
from embedline.compress.layers import without_layers
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.training.batching.passages import PassageBatch
from embedline.training.engine.step_timer import StepTimer
from embedline.training.engine.token_budget import TokenBudget
from embedline.training.objectives.distillation import distillation_loss, heads_distance


def _heal(
    student: Embedder, teacher: Embedder, texts: list[str], folder, steps=40, on_metrics=None, **changed
):
    settings = {"batch": 32, "learning_rate": 2e-3, "batch_tokens": 512, "seed": 0, "bf16": False}
    heal(
        student,
        teacher,
        texts,
        steps=steps,
        checkpoints=folder,
        on_metrics=on_metrics or (lambda values, step: None),
        **{**settings, **changed},
    )


def _same_nearest(student: Embedder, teacher: Embedder, queries: list[str], corpus: list[str]) -> float:
    nearest = [(m.encode(queries) @ m.encode(corpus).T).argmax(1) for m in (student, teacher)]
    return float((nearest[0] == nearest[1]).mean())


def test_healed_beats_unhealed_on_texts_it_never_saw(make_embedder, make_texts, tmp_path):
    teacher = make_embedder(layers=4)
    student = without_layers(teacher, [0, 2, 3])
    texts, queries, corpus = make_texts(600, 0), make_texts(100, 1), make_texts(200, 2)
    before = fidelity(student, teacher, queries, batch_tokens=4096)
    found_before = _same_nearest(student, teacher, queries, corpus)
    _heal(student, teacher, texts, tmp_path, steps=60)
    after = fidelity(student, teacher, queries, batch_tokens=4096)
    assert after.cosine > before.cosine + 0.5 * (1 - before.cosine)
    assert after.loss < 0.5 * before.loss
    assert _same_nearest(student, teacher, queries, corpus) > found_before + 0.1


def test_the_teacher_does_not_change(make_embedder, make_texts, tmp_path):
    teacher = make_embedder(layers=3)
    before = copy.deepcopy(teacher.state_dict())
    _heal(without_layers(teacher, [0, 2]), teacher, make_texts(64, 0), tmp_path, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_chunks_leave_the_gradient_of_the_whole_batch(make_embedder, make_texts):
    teacher, texts = make_embedder(layers=3), make_texts(32, 0)
    student = without_layers(teacher, [0, 2])
    _HealStep(student, teacher, TokenBudget(24), StepTimer())(
        student, PassageBatch("healing", list(range(32)), student.tokenize(texts, max_length=32))
    )
    found = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()
    inputs = student.pad(student.tokenize(texts, max_length=32))
    vectors = F.normalize(student(**inputs), dim=-1)
    with torch.no_grad():
        expected = F.normalize(teacher(**inputs), dim=-1)
    distillation_loss(vectors, expected, expected).mean().backward()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_resumed_healing_equals_an_uninterrupted_one(make_embedder, make_texts, tmp_path):
    class KilledError(Exception):
        pass

    def kill(values: dict[str, float], step: int) -> None:
        if step >= 6:
            raise KilledError

    teacher, texts = make_embedder(layers=3), make_texts(64, 0)
    whole, resumed = without_layers(teacher, [0, 2]), without_layers(teacher, [0, 2])
    _heal(whole, teacher, texts, tmp_path / "whole", steps=8)
    with pytest.raises(KilledError):
        _heal(resumed, teacher, texts, tmp_path / "killed", steps=8, on_metrics=kill)
    resumed = without_layers(teacher, [0, 2])
    _heal(resumed, teacher, texts, tmp_path / "killed", steps=8)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bf16_heals_too(make_embedder, make_texts, tmp_path):
    teacher, texts = make_embedder(layers=3), make_texts(64, 0)
    student = without_layers(teacher, [0, 2])
    before = fidelity(student, teacher, texts, batch_tokens=4096)
    _heal(student, teacher, texts, tmp_path, steps=10, bf16=True)
    assert fidelity(student, teacher, texts, batch_tokens=4096).cosine > before.cosine
    assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_the_other_heads_heal_too(make_embedder, make_texts, tmp_path):
    teacher = make_embedder(layers=3)
    spec = replace(teacher.spec, heads=("dense", "lexical", "multi_vector"), multi_vector_width=8)
    teacher = teacher.with_spec(spec).eval()
    torch.nn.init.normal_(teacher.heads["lexical"].weigh.weight, std=0.1)  # a new head weighs all terms alike
    student = without_layers(teacher, [0, 2]).eval()
    unseen = student.pad(student.tokenize(make_texts(64, 5), max_length=32))

    @torch.no_grad()
    def distance() -> float:
        found = heads_distance(
            student.represent(**unseen), teacher.represent(**unseen), unseen["attention_mask"]
        )
        return float(found.mean())

    before, heads = distance(), copy.deepcopy(student.heads.state_dict())
    assert before > 0.01
    _heal(student, teacher, make_texts(300, 0), tmp_path, steps=60)
    student.eval()
    assert distance() < 0.6 * before
    for name, weight in student.heads.state_dict().items():  # the dense vectors do not depend on them
        assert not torch.equal(weight, heads[name]), name


def test_the_longest_texts_come_first_and_a_bad_batch_is_saved(
    make_embedder, make_texts, tmp_path, monkeypatch, capsys
):
    teacher, texts = make_embedder(layers=2), make_texts(64, 0)
    sizes: list[int] = []
    real = _HealStep.__call__

    def watched(self, module, batch):
        sizes.append(sum(len(texts[row]) for row in batch.rows))
        value, metrics = real(self, module, batch)
        return value * float("nan") if len(sizes) == 2 else value, metrics

    monkeypatch.setattr(_HealStep, "__call__", watched)
    _heal(without_layers(teacher, [0]), teacher, texts, tmp_path, batch=4, bad_batches=tmp_path / "bad")
    assert sizes[0] == max(sizes) > min(sizes)
    assert "step 1: the loss is nan on a batch of healing (rows " in capsys.readouterr().out
    kept = json.loads((tmp_path / "bad" / "bad-step-1-healing.json").read_text())
    assert sum(len(texts[row]) for row in kept["rows"]) == sizes[1]


def test_fewer_texts_than_a_batch_are_used_again(make_embedder, make_texts, tmp_path):
    teacher = make_embedder(layers=2)
    logged: list[int] = []
    student = without_layers(teacher, [0])
    _heal(
        student, teacher, make_texts(5, 0), tmp_path, steps=3, on_metrics=lambda _, step: logged.append(step)
    )
    assert logged == [1, 2, 3]


def test_no_texts_is_an_error(make_embedder, tmp_path):
    teacher = make_embedder(layers=2)
    with pytest.raises(InputError, match="no texts"):
        _heal(without_layers(teacher, [0]), teacher, [], tmp_path)

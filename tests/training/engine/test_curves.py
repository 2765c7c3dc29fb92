"""Each kind of training logs the curves that are documented for it, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedline.compress.heal import heal
from embedline.config.training import ContrastiveConfig, DistillationConfig, PretrainConfig
from embedline.training.batching.records import Record
from embedline.training.contrastive import step as contrastive_step
from embedline.training.contrastive.teacher import Teacher
from embedline.training.contrastive.training import train_contrastive
from embedline.training.engine.curves import CURVES, of_training
from embedline.training.pretraining import pretrain

History = list[tuple[int, dict[str, float]]]
SHARED: dict[str, Any] = {"steps": 4, "batch": 4, "batch_tokens": 128, "log_every": 1}
HEADS = ("dense", "lexical", "multi_vector")


@pytest.fixture
def sources(record: Callable[..., Record], texts: list[str]) -> dict[str, list[Record]]:
    """Two of pairs and one of scored pairs."""
    rows = {
        name: [record(f"{text} {name}", [f"{name} {text}"]) for text in texts] for name in ("faq", "docs")
    }
    rows["sts"] = [record(text, [f"{text} да"], [], "sts", i / 10) for i, text in enumerate(texts)]
    return {name: [replace(row, source=name) for row in given] for name, given in rows.items()}


def contrastive(
    folder: Path, embedder: Any, records: list[Record], teacher: Teacher | None = None, **values: Any
) -> History:
    logged: History = []
    train_contrastive(
        embedder,
        records,
        ContrastiveConfig(**(SHARED | values)),
        weights={},
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, step: logged.append((step, metrics)),
        teacher=teacher,
    )
    return logged


def names(logged: History) -> set[str]:
    """A source's own loss as the documentation names it."""
    return {"loss.SOURCE" if name.startswith("loss.") else name for _, values in logged for name in values}


def test_pretraining_logs_the_documented_curves(make_embedder: Any, texts: list[str], tmp_path: Path) -> None:
    found: set[str] = set()
    for objective in ("retromae", "mlm", "mntp"):
        logged: History = []
        pretrain(
            make_embedder("llama" if objective == "mntp" else "bert"),
            texts,
            PretrainConfig(**SHARED | {"steps": 2}, objective=objective, length=16, bag_of_words=0.5),
            seed=1,
            bf16=False,
            checkpoints=tmp_path / objective,
            on_metrics=lambda values, step, logged=logged: logged.append((step, values)),
        )
        assert {"encoder_loss", "token_loss"} & names(logged) == {
            "encoder_loss" if objective == "retromae" else "token_loss"
        }
        found |= names(logged)
    assert found == of_training("pretrain").keys()


def test_contrastive_training_logs_the_documented_curves(
    make_embedder: Any, sources: Any, tmp_path: Path
) -> None:
    teacher = make_embedder(seed=5).eval()
    teacher = Teacher(teacher, ["ru"], DistillationConfig(), width=teacher.width, folder=tmp_path / "teacher")
    rows = [row for given in sources.values() for row in given]
    taught = contrastive(tmp_path / "taught", make_embedder(), rows, teacher, steps=12)
    logged = contrastive(tmp_path / "unified", make_embedder(heads=HEADS), rows, objective="unified", batch=8)
    assert names(taught) | names(logged) == of_training("contrastive").keys()
    assert {"lexical_loss", "multi_vector_loss"} <= names(logged) - names(taught)
    drawn = {name for _, values in taught for name in values if name.startswith("loss.")}
    assert drawn == {"loss.faq", "loss.docs", "loss.sts"}
    for _, values in taught:  # a batch is of one source
        (own,) = (value for name, value in values.items() if name.startswith("loss."))
        assert own == values["loss"]
        scored = "loss.sts" in values
        assert ("cosent_loss" in values) is scored
        for name in ("temperature", "in_batch_accuracy", "alignment", "uniformity", "dense_loss"):
            assert (name in values) is not scored, name


def test_healing_logs_the_documented_curves(make_embedder: Any, texts: list[str], tmp_path: Path) -> None:
    logged: History = []
    heal(
        make_embedder(seed=2),
        make_embedder(),
        texts,
        steps=2,
        batch=4,
        learning_rate=1e-3,
        batch_tokens=64,
        seed=3,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda values, step: logged.append((step, values)),
    )
    assert names(logged) == of_training("heal").keys()


def test_expensive_metrics_are_computed_at_logged_steps_only(
    make_embedder: Any, sources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = contrastive_step.batch_metrics, []
    monkeypatch.setattr(
        contrastive_step, "batch_metrics", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    logged = contrastive(tmp_path, make_embedder(), sources["faq"], steps=6, log_every=3)
    assert len(calls) == len(logged) == 2


def test_tokens_count_each_distinct_text_once(make_embedder: Any, sources: Any, tmp_path: Path) -> None:
    """All texts of a batch in one chunk, one query twice; with GradCache's second pass and without."""
    rows = sources["docs"]  # the default prompts
    rows = [*rows, replace(rows[0], positives=["docs VPN VPN"])]
    whole = {"batch": len(rows), "batch_tokens": 4096, "steps": 1}
    shares = []
    for kept in (0, 4096):
        logged = contrastive(tmp_path / str(kept), make_embedder(), rows, resident_tokens=kept, **whole)
        shares.append(logged[0][1]["padding_share"])
    embedder = make_embedder()
    table = embedder.spec.prompts
    queries = dict.fromkeys(table.prompt("query") + row.query for row in rows)
    documents = dict.fromkeys(table.prompt("document") + row.positives[0] for row in rows)
    lengths = [
        len(ids)
        for texts, limit in ((queries, 16), (documents, 24))
        for ids in embedder.tokenize(list(texts), max_length=limit)
    ]
    assert len(lengths) < 2 * len(rows)
    assert shares == pytest.approx([1 - sum(lengths) / (len(lengths) * max(lengths))] * 2)


def test_documented_trainings_exist() -> None:
    assert {kind for curve in CURVES.values() for kind in curve.trainings} == {
        "pretrain",
        "contrastive",
        "heal",
    }

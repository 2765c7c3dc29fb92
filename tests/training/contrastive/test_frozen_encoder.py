"""Training of the lexical and multi-vector heads alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError, StepError
from embedline.training.contrastive.training import train_contrastive

VALUES = {"batch": 4, "steps": 6, "batch_tokens": 64, "log_every": 2, "checkpoint_every": 3}
FROZEN = {"objective": "unified", "freeze_encoder": True, "learning_rate": 1e-2, "resident_tokens": 100}


def fit(embedder: Any, rows: Any, folder: Path, **values: Any) -> list[dict[str, float]]:
    logged: list[dict[str, float]] = []
    train_contrastive(
        embedder,
        rows,
        ContrastiveConfig(**(VALUES | FROZEN | values)),
        weights={},
        seed=3,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, step: logged.append(metrics),
    )
    return logged


@pytest.fixture
def rows(record: Callable[..., Any], texts: list[str]) -> list[Any]:
    return [record(f"{text} {i}", [f"{i} {text}"]) for i, text in enumerate(texts)]


@pytest.mark.parametrize("heads", [("dense", "lexical"), ("dense", "lexical", "multi_vector")])
def test_a_frozen_encoder_keeps_dense_vectors_bit_for_bit(
    make_embedder, rows: list[Any], texts: list[str], tmp_path: Path, heads: tuple[str, ...]
) -> None:
    embedder = make_embedder(heads=heads, hidden_dropout_prob=0.1)
    vectors = embedder.encode(texts)
    before = {name: weights.clone() for name, weights in embedder.state_dict().items()}
    logged = fit(embedder, rows, tmp_path)
    np.testing.assert_array_equal(embedder.encode(texts), vectors)
    for name, weights in embedder.state_dict().items():
        assert torch.equal(weights, before[name]) is not name.startswith("heads."), name
    assert all(parameter.requires_grad for parameter in embedder.parameters())
    assert logged[0]["dense_loss"] != logged[-1]["dense_loss"]  # other batches
    for values in logged:
        assert values["lexical_document_terms_min"] <= values["lexical_document_terms"]
        assert values["lexical_empty_share"] == 0


def test_heads_get_the_gradients_that_they_get_with_the_encoder(
    make_embedder, rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedline.training.contrastive import step

    found: list[dict[str, torch.Tensor]] = []
    call = step.ContrastiveStep.__call__

    def spy(self: Any, module: Any, batch: Any) -> Any:
        result = call(self, module, batch)
        found.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
        return result

    monkeypatch.setattr(step.ContrastiveStep, "__call__", spy)
    for frozen in (True, False):
        embedder = make_embedder(heads=("dense", "lexical", "multi_vector"))
        fit(embedder, rows, tmp_path / str(frozen), freeze_encoder=frozen, steps=1)
    alone, together = found
    assert alone.keys() == {name for name in together if name.startswith("heads.")}
    for name, gradient in alone.items():
        torch.testing.assert_close(gradient, together[name], rtol=1e-4, atol=1e-6)


def test_rows_with_scores_are_left_out_of_a_frozen_stage(
    make_embedder, rows: list[Any], record: Callable[..., Any], texts: list[str], tmp_path: Path
) -> None:
    scored = [record(text, [texts[0]], [], "sts", i / 8) for i, text in enumerate(texts)]
    embedder = make_embedder(heads=("dense", "lexical"))
    logged = fit(embedder, [*rows, *scored], tmp_path / "both")
    assert not any("cosent_loss" in values for values in logged)
    with pytest.raises(InputError, match="all 8 records have a score") as error:
        fit(embedder, scored, tmp_path / "scored")
    assert "freeze_encoder" in str(error.value.fix)


def test_a_dead_lexical_head_stops_the_training_at_its_first_step(
    make_embedder, rows: list[Any], tmp_path: Path
) -> None:
    embedder = make_embedder(heads=("dense", "lexical"))
    with torch.no_grad():
        embedder.heads["lexical"].weigh.weight.fill_(1e-9)  # not as a new head is made
        embedder.heads["lexical"].weigh.bias.fill_(-1.0)
    with pytest.raises(StepError, match="have no active term at step 1"):
        fit(embedder, rows, tmp_path, log_every=1)


def test_a_new_lexical_head_starts_from_the_records(make_embedder, rows: list[Any], tmp_path: Path) -> None:
    """At a learning rate of nearly 0, what differs is the start: rare words weigh more than those of all."""
    embedder = make_embedder(heads=("dense", "lexical"))
    fit(embedder, rows, tmp_path, learning_rate=1e-12, steps=1, weight_decay=0.0)
    ids = embedder.tokenize(["search_query: VPN"], max_length=16)
    with torch.no_grad():
        weights = embedder.eval().represent(**embedder.pad(ids)).lexical[0]
    assert weights.max() > weights[weights > 0].min()
    assert embedder.heads["lexical"].weigh.weight.any()

"""Masked tokens and masked next tokens as stages; RetroMAE has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from embedline.config.training import PretrainConfig
from embedline.models.embedder import Embedder
from embedline.training import pretraining
from embedline.training.batching.passages import PassageBatch, Passages
from embedline.training.batching.words import first_tokens
from embedline.training.objectives.mlm import MaskedLanguageModel
from embedline.training.pretraining import (
    HiddenTokens,
    PretrainStep,
    mask_token,
    objective_module,
    pretrain,
)


def config(**values: Any) -> PretrainConfig:
    base = {"batch": 4, "length": 16, "batch_tokens": 64, "checkpoint_every": 2, "log_every": 10}
    return PretrainConfig(**(base | values))


def fit(embedder: Embedder, texts: list[str], values: PretrainConfig, folder: Path, **more: Any) -> list:
    logged: list[dict[str, float]] = []
    pretrain(
        embedder,
        texts,
        values,
        seed=0,
        bf16=False,
        checkpoints=folder,
        on_metrics=lambda metrics, _: logged.append(metrics),
        **more,
    )
    return logged


DECODER = {"num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("architecture", "settings"), [("modernbert", {}), ("llama", DECODER)], ids=["encoder", "decoder"]
)
@pytest.mark.parametrize("objective", ["mlm", "mntp"])
def test_the_loss_falls(
    make_embedder, texts: list[str], tmp_path, objective: str, architecture: str, settings: dict[str, Any]
) -> None:
    values = config(
        objective=objective, steps=60, learning_rate=5e-3, schedule="constant", checkpoint_every=100
    )
    logged = fit(make_embedder(architecture, **settings), texts, values, tmp_path)
    assert logged[-1]["token_loss"] < 0.85 * logged[0]["token_loss"]
    assert logged[-1]["loss"] == pytest.approx(logged[-1]["token_loss"], rel=1e-3)


@pytest.mark.parametrize("source", ["vector", "tokens"])
def test_the_bag_of_words_is_learnt(make_embedder, texts: list[str], tmp_path: Path, source: str) -> None:
    values = config(
        objective="retromae",
        bag_of_words=1.0,
        bag_of_words_from=source,
        steps=40,
        learning_rate=5e-3,
        checkpoint_every=100,
    )
    logged = fit(make_embedder("modernbert"), texts, values, tmp_path)
    assert 0 < logged[-1]["words_loss"] < 0.9 * logged[0]["words_loss"]


@pytest.mark.parametrize(
    "values",
    [
        {"objective": "mlm"},
        {"objective": "mntp"},
        {"objective": "retromae"},
        {"objective": "retromae", "whole_words": True, "hidden_as": "bert"},
    ],
    ids=["mlm", "mntp", "retromae", "retromae of whole words"],
)
def test_killed_and_resumed_equals_uninterrupted(
    make_embedder, texts: list[str], tmp_path: Path, dies_at_its_fourth_call, values: dict[str, Any]
) -> None:
    values = config(steps=6, **values)
    whole = make_embedder("modernbert")
    fit(whole, texts, values, tmp_path / "whole")
    dies_at_its_fourth_call(pretraining.PretrainStep)
    with pytest.raises(KeyboardInterrupt):
        fit(make_embedder("modernbert"), texts, values, tmp_path / "killed")
    resumed = make_embedder("modernbert")
    fit(resumed, texts, values, tmp_path / "killed")
    for (name, one), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_longest_passages_come_first(
    make_embedder, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = PretrainStep.__call__

    def watched(self: Any, module: Any, batch: dict[str, Any]) -> Any:
        seen.append(sum(len(texts[row]) for row in batch.rows))
        return real(self, module, batch)

    monkeypatch.setattr(PretrainStep, "__call__", watched)
    fit(make_embedder(), texts, config(objective="mlm", steps=6, batch=2), tmp_path)
    assert seen[0] == max(seen) > min(seen)


def test_only_ordinary_tokens_are_hidden_and_predicted(make_embedder, texts: list[str]) -> None:
    module = MaskedLanguageModel(make_embedder("bert"))
    seen: list[tuple[Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    tokenizer = module.embedder.tokenizer
    ids = module.embedder.tokenize(texts, max_length=16)
    step = PretrainStep(config(objective="mlm", encoder_mask=0.5), mask_id=mask_token(tokenizer), bf16=False)
    loss, metrics = step(module, PassageBatch("corpus", list(range(len(ids))), ids))
    assert metrics == {"token_loss": pytest.approx(loss.item()), "tokens": sum(map(len, ids))}
    special = torch.tensor(tokenizer.all_special_ids)
    for input_ids, mask, masked_ids, targets in seen:
        ordinary = mask.bool() & ~torch.isin(input_ids, special)
        assert targets.any()
        assert not (targets & ~ordinary).any()
        assert not ((masked_ids != input_ids) & ~targets).any()


def hidden_by(
    objective: str, embedder: Embedder, texts: list[str], **values: Any
) -> tuple[list[int], HiddenTokens]:
    """What one step hides of all texts: their numbers, in the batch's order, and the tokens."""
    given = config(objective=objective, **values)
    torch.manual_seed(0)
    module = objective_module(embedder, texts, given)
    shape: dict[str, Any] = {"source": "corpus", "length": 16, "batch": len(texts), "steps": 1, "seed": 0}
    batch = Passages(embedder, texts, **shape, words=given.whole_words)[0]
    step = PretrainStep(given, mask_id=mask_token(embedder.tokenizer), bf16=False)
    torch.manual_seed(5)
    return batch.rows, step._hidden(module, batch)


def ordinary(embedder: Embedder, hidden: HiddenTokens) -> Tensor:
    special = torch.tensor(embedder.tokenizer.all_special_ids)
    return hidden.attention_mask.bool() & ~torch.isin(hidden.input_ids, special)


@pytest.mark.parametrize("given", [{}, {"hidden_as": "mask"}], ids=["auto", "mask"])
def test_retromae_masks_single_tokens_by_default(make_embedder, texts, given) -> None:
    """The draws themselves, one for the encoder and one for the decoder: what a seed gave stays."""
    embedder = make_embedder("bert")
    _, hidden = hidden_by("retromae", embedder, texts, decoder_targets=0.5, **given)
    allowed = ordinary(embedder, hidden)
    torch.manual_seed(5)
    expected = allowed & (torch.rand(allowed.shape) < 0.3)
    assert torch.equal(hidden.targets_BT, expected)
    mask = embedder.tokenizer.mask_token_id
    assert torch.equal(hidden.masked_ids, hidden.input_ids.masked_fill(expected, mask))
    assert torch.equal(hidden.decoder_targets_BT, allowed & (torch.rand(allowed.shape) < 0.5))
    assert hidden.words_BT is None


def test_retromae_hides_as_bert_does_when_told_to(make_embedder, texts: list[str]) -> None:
    """80, 10 and 10 %, as the authors' collator; random and kept tokens are predicted, too."""
    embedder = make_embedder("bert")
    many = [texts[i % len(texts)] for i in range(400)]
    _, hidden = hidden_by("retromae", embedder, many, hidden_as="bert", encoder_mask=0.5)
    seen, were = hidden.masked_ids[hidden.targets_BT], hidden.input_ids[hidden.targets_BT]
    assert (seen == embedder.tokenizer.mask_token_id).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (seen == were).double().mean().item() == pytest.approx(0.1, abs=0.03)
    assert not ((hidden.masked_ids != hidden.input_ids) & ~hidden.targets_BT).any()
    assert hidden.targets_BT.sum() / ordinary(embedder, hidden).sum() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("objective", ["mlm", "mntp"])
def test_all_hidden_tokens_may_become_the_mask(make_embedder, texts: list[str], objective: str) -> None:
    embedder = make_embedder("bert")
    _, hidden = hidden_by(objective, embedder, texts, hidden_as="mask")
    assert hidden.targets_BT.any()
    assert torch.equal(hidden.masked_ids == embedder.tokenizer.mask_token_id, hidden.targets_BT)


@pytest.mark.parametrize("objective", ["mlm", "mntp", "retromae"])
def test_every_objective_can_hide_whole_words(make_embedder, texts: list[str], objective: str) -> None:
    embedder = make_embedder("bert")
    rows, hidden = hidden_by(objective, embedder, texts, whole_words=True, encoder_mask=0.5)
    words = first_tokens(embedder.tokenizer, [texts[row] for row in rows], max_length=16)
    pieces = 0
    for targets, first in zip(hidden.targets_BT.tolist(), words, strict=True):
        assert all(targets[token] == targets[start] for token, start in enumerate(first))
        pieces += sum(targets[token] and token != start for token, start in enumerate(first))
    assert pieces  # there were words of several tokens among them
    assert not (hidden.targets_BT & ~ordinary(embedder, hidden)).any()
    if objective == "retromae":
        assert [
            row[: len(first)] for row, first in zip(hidden.words_BT.tolist(), words, strict=True)
        ] == words


def test_a_decoder_without_mask_token_hides_behind_an_underscore(tokenizer) -> None:
    assert mask_token(tokenizer) == tokenizer.mask_token_id

    class Bare:
        mask_token_id = None

        def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
            assert (text, add_special_tokens) == ("_", False)
            return {"input_ids": [7]}

    assert mask_token(Bare()) == 7

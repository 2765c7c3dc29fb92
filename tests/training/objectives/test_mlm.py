"""Masked language modelling against transformers' BertForMaskedLM, and BERT's masking against its shares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import BertForMaskedLM

from embedline.training.objectives.mlm import MaskedLanguageModel
from embedline.training.objectives.prediction import corrupt_tokens

MASK, VOCABULARY = 4, 300


def batch(model: MaskedLanguageModel, seed: int = 0) -> dict[str, Tensor]:
    """Ids of three lengths, what the encoder sees of them, and the targets."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(5, VOCABULARY, (n,), generator=generator).tolist() for n in (9, 4, 12)]
    inputs = model.embedder.pad(rows)
    torch.manual_seed(seed)
    masked_ids, targets_BT = corrupt_tokens(
        inputs["input_ids"], inputs["attention_mask"].bool(), 0.5, MASK, vocabulary=VOCABULARY
    )
    return {**inputs, "masked_ids": masked_ids, "targets_BT": targets_BT}


def test_equals_transformers_bert(make_embedder) -> None:
    """The same weights, the output matrix not tied: the same loss, the same gradient in every weight."""
    embedder = make_embedder("bert", tie_word_embeddings=False).eval()
    model = MaskedLanguageModel(embedder)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    peer = BertForMaskedLM(embedder.backbone.config).eval()
    peer.bert.load_state_dict(
        {name: value for name, value in embedder.backbone.state_dict().items() if "pooler" not in name}
    )
    head = peer.cls.predictions
    head.transform.dense.load_state_dict(model.head[0].dense.state_dict())
    head.transform.LayerNorm.load_state_dict(model.head[0].norm.state_dict())
    head.transform.LayerNorm.eps = model.head[0].norm.eps
    head.decoder.weight.data.copy_(model.head[1].table_VD.data)
    head.decoder.bias.data.copy_(model.head[1].bias_V.data)

    given = batch(model)
    ours = model(**given)
    theirs = peer(
        input_ids=given["masked_ids"],
        attention_mask=given["attention_mask"],
        labels=given["input_ids"].masked_fill(~given["targets_BT"], -100),
    ).loss
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(model.head[1].table_VD.grad, head.decoder.weight.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.head[0].dense.weight.grad, head.transform.dense.weight.grad)
    theirs_by_name = dict(peer.bert.named_parameters())
    for name, parameter in embedder.backbone.named_parameters():
        if "pooler" not in name:
            torch.testing.assert_close(parameter.grad, theirs_by_name[name].grad, atol=1e-6, rtol=1e-5)


def test_only_targets_count(make_embedder) -> None:
    model = MaskedLanguageModel(make_embedder("bert")).eval()
    given = batch(model)
    other = torch.where(given["targets_BT"], given["input_ids"], 7)
    torch.testing.assert_close(model(**given), model(**{**given, "input_ids": other}))


def test_no_targets_are_no_harm(make_embedder) -> None:
    model = MaskedLanguageModel(make_embedder("bert"))
    given = batch(model)
    loss = model(**{**given, "targets_BT": torch.zeros_like(given["targets_BT"])})
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "nomic_bert"])
def test_loss_falls(make_embedder, losses_of, architecture: str) -> None:
    model = MaskedLanguageModel(make_embedder(architecture)).train()
    losses = losses_of(model, batch(model))
    assert losses[-1] < 0.5 * losses[0]


def test_eight_of_ten_targets_are_masked_one_is_random_one_stays() -> None:
    ids = torch.randint(5, VOCABULARY, (200, 100))
    maskable = torch.rand(200, 100) < 0.7
    seen, targets = corrupt_tokens(ids, maskable, 0.3, MASK, vocabulary=VOCABULARY)
    assert not (targets & ~maskable).any()
    assert targets[maskable].double().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(seen[~targets], ids[~targets])
    masked, stayed = seen[targets] == MASK, seen[targets] == ids[targets]
    assert masked.double().mean().item() == pytest.approx(0.8, abs=0.02)
    assert stayed.double().mean().item() == pytest.approx(0.1, abs=0.02)
    drawn = seen[targets][~masked & ~stayed]
    assert int(drawn.min()) >= 0
    assert 0.9 * VOCABULARY < drawn.max() < VOCABULARY


def test_without_random_and_kept_tokens_all_targets_are_masked() -> None:
    ids = torch.randint(5, VOCABULARY, (20, 50))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    seen, targets = corrupt_tokens(ids, everywhere, 0.3, MASK, vocabulary=VOCABULARY, random=0, keep=0)
    assert torch.equal(seen == MASK, targets)


def test_tokens_of_a_word_are_predicted_together_and_changed_each_alone() -> None:
    """Words of three tokens; the share of tokens is that of words."""
    ids = torch.randint(5, VOCABULARY, (300, 60))
    words = (torch.arange(60) // 3 * 3).repeat(300, 1)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    seen, targets = corrupt_tokens(ids, everywhere, 0.3, MASK, vocabulary=VOCABULARY, words_BT=words)
    by_word = targets.view(300, 20, 3).sum(-1)
    assert set(by_word.unique().tolist()) == {0, 3}
    assert targets.double().mean().item() == pytest.approx(0.3, abs=0.02)
    masked = (seen == MASK).view(300, 20, 3)[by_word == 3].sum(-1)
    assert set(masked.unique().tolist()) == {0, 1, 2, 3}
    assert masked.double().mean().item() / 3 == pytest.approx(0.8, abs=0.02)

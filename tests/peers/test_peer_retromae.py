"""RetroMAE and DupMAE against a transcription of the papers' equations, one number at a time, in float64.

The transcription reads the module's weights and the encoder's states, and uses nothing else of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf

from embedline.training.objectives.retromae import RetroMAE

WIDTH, LENGTH, LENGTHS = 128, 12, (9, 5)
CLS, SEP, MASK = 2, 3, 4
Row = np.ndarray


@pytest.fixture
def module(make_embedder) -> RetroMAE:
    torch.manual_seed(0)
    made = RetroMAE(make_embedder("modernbert", hidden_size=WIDTH), length=LENGTH).double().eval()
    assert made.heads > 1
    for parameter in made.parameters():  # no bias is zero, no norm is the identity
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


@pytest.fixture
def batch(module: RetroMAE) -> dict[str, torch.Tensor]:
    """Two texts between special tokens, some words twice, some hidden from the encoder."""
    generator = np.random.default_rng(0)
    rows = [[CLS, *generator.integers(5, 11, n - 2).tolist(), SEP] for n in LENGTHS]
    inputs = module.embedder.pad(rows)
    masked_ids = inputs["input_ids"].clone()
    masked_ids[0, [2, 4]] = masked_ids[1, 3] = MASK
    return {**inputs, "masked_ids": masked_ids, "targets_BT": masked_ids == MASK}


@pytest.fixture
def seen(module: RetroMAE, batch, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Each position's own sample of its context, the same for the module and the transcription."""
    drawn = module._sample(batch["attention_mask"])
    monkeypatch.setattr(module, "_sample", lambda mask, words: drawn)
    return drawn.numpy()


def weight(layer: Any) -> Row:
    return layer.weight.detach().numpy()


def linear(layer: Any, row: Row) -> Row:
    return weight(layer) @ row + layer.bias.detach().numpy()


def norm(layer: Any, row: Row) -> Row:
    return (row - row.mean()) / np.sqrt(row.var() + layer.eps) * weight(layer) + layer.bias.detach().numpy()


def gelu(row: Row) -> Row:
    return row * 0.5 * (1 + erf(row / math.sqrt(2)))


def softmax(row: Row) -> Row:
    shares = np.exp(row - row.max())
    return shares / shares.sum()


def logits(module: RetroMAE, row: Row) -> Row:
    return module.output.table_VD.detach().numpy() @ row + module.output.bias_V.detach().numpy()


def surprise(module: RetroMAE, head: Any, state: Row, target: int) -> float:
    """-log p(target): BERT's prediction head on one state."""
    row = norm(head.norm, gelu(linear(head.dense, state)))
    return -math.log(softmax(logits(module, row))[target])


def states(module: RetroMAE, batch: dict[str, torch.Tensor]) -> Row:
    run = module.embedder.backbone(input_ids=batch["masked_ids"], attention_mask=batch["attention_mask"])
    return run.last_hidden_state.detach().numpy()


def sentence(states_TD: Row) -> Row:
    """The mean of the states, of length √D."""
    vector = sum(states_TD) / len(states_TD)
    return vector * math.sqrt(len(vector)) / math.sqrt(sum(x * x for x in vector))


def decoded(module: RetroMAE, vector: Row, ids: list[int], seen_TS: Row) -> list[Row]:
    """H1 asks, H2 answers, each row of M is its own; then what follows attention in every transformer."""
    table, place = weight(module.embedder.backbone.get_input_embeddings()), weight(module.positions)
    h1 = [vector + place[i] for i in range(len(ids))]
    h2 = [vector, *(table[token] + place[i] for i, token in enumerate(ids))]
    size = WIDTH // module.heads
    rebuilt = []
    for i, asking in enumerate(h1):
        heads = []
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            query = linear(module.query, asking)[part]
            m = [0.0 if seen_TS[i, j] else -math.inf for j in range(len(h2))]
            scores = [
                query @ linear(module.key, row)[part] / math.sqrt(size) + m[j] for j, row in enumerate(h2)
            ]
            shares = softmax(np.array(scores))
            heads.append(sum(shares[j] * linear(module.value, row)[part] for j, row in enumerate(h2)))
        attended = norm(module.attention_norm, linear(module.projection, np.concatenate(heads)) + asking)
        inner = gelu(linear(module.feed_forward[0], attended))
        rebuilt.append(norm(module.output_norm, linear(module.feed_forward[2], inner) + attended))
    return rebuilt


def test_enhanced_decoding(module: RetroMAE, batch, seen: Row) -> None:
    vectors = torch.randn(2, WIDTH, dtype=torch.float64)
    table = module.embedder.backbone.get_input_embeddings().weight
    fast = module._decode(vectors, table[batch["input_ids"]], batch["attention_mask"]).detach().numpy()
    for row, length in enumerate(LENGTHS):
        ids = batch["input_ids"][row, :length].tolist()
        expected = decoded(module, vectors[row].numpy(), ids, seen[row])
        np.testing.assert_allclose(fast[row, :length], expected, atol=1e-10)


def test_the_loss_of_the_encoder(module: RetroMAE, batch) -> None:
    """The hidden tokens, and they alone, from their own states."""
    nothing = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    encoder, decoder, _ = module(**batch, decoder_targets_BT=nothing)
    h = states(module, batch)
    hidden = [(0, 2), (0, 4), (1, 3)]
    expected = [
        surprise(module, module.encoder_head, h[row, i], int(batch["input_ids"][row, i])) for row, i in hidden
    ]
    assert encoder.item() == pytest.approx(sum(expected) / 3, rel=1e-6)  # cross-entropy is in fp32
    assert decoder.item() == 0.0


def test_the_loss_of_the_decoder(module: RetroMAE, batch, seen: Row) -> None:
    """Every token asked for, from the text's vector and the position's own sample of the unhidden text."""
    targets = batch["attention_mask"].bool() & (torch.arange(max(LENGTHS)) % 2 == 0)
    _, decoder, _ = module(**batch, decoder_targets_BT=targets)
    h = states(module, batch)
    expected = []
    for row, length in enumerate(LENGTHS):
        ids = batch["input_ids"][row, :length].tolist()
        rebuilt = decoded(module, sentence(h[row, :length]), ids, seen[row])
        expected += [surprise(module, module.decoder_head, rebuilt[i], ids[i]) for i in range(0, length, 2)]
    assert decoder.item() == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_dupmaes_bag_of_words(module: RetroMAE, batch) -> None:
    """The largest score that any ordinary token gives a word; each word of the text once, by its length."""
    module.words_from = "tokens"
    words = module(**batch, decoder_targets_BT=batch["attention_mask"].bool()).words
    h = states(module, batch)
    expected = []
    for row, length in enumerate(LENGTHS):
        ids = batch["input_ids"][row].tolist()
        ordinary = range(1, length - 1)
        scores = [logits(module, h[row, i]) for i in ordinary]
        mu = np.array([max(score[word] for score in scores) for word in range(len(scores[0]))])
        log_shares = {ids[i]: -math.log(softmax(mu)[ids[i]]) for i in ordinary}
        assert len(log_shares) < len(ordinary) or row == 1
        expected.append(sum(log_shares.values()) / len(ordinary))
    assert words.item() == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_the_bag_of_words_of_the_vector(module: RetroMAE, batch) -> None:
    """The vector's own form of it: every token, as often as it stands there."""
    module.words_from = "vector"
    words = module(**batch, decoder_targets_BT=batch["attention_mask"].bool()).words
    h = states(module, batch)
    expected: list[float] = []
    for row, length in enumerate(LENGTHS):
        shares = softmax(logits(module, sentence(h[row, :length])))
        expected += [-math.log(shares[int(batch["input_ids"][row, i])]) for i in range(length)]
    assert words.item() == pytest.approx(sum(expected) / len(expected), rel=1e-6)

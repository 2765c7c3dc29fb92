"""RetroMAE's enhanced decoding against a transcription of the paper's equations 5 to 9, number by number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import erf

from embedline.config.training import PretrainConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder import save_embedder
from embedline.training.objectives.retromae import RetroMAE, mask_tokens
from embedline.training.pretraining import PretrainStep, pretrain

LENGTH = 12


@pytest.fixture
def module(make_embedder) -> RetroMAE:
    torch.manual_seed(0)
    made = RetroMAE(make_embedder("modernbert", hidden_size=128), length=LENGTH).double().eval()
    for parameter in made.parameters():  # no bias is zero, no norm is the identity
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def batch(module: RetroMAE, lengths: tuple[int, ...] = (9, 5)) -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(0)
    return module.embedder.pad([generator.integers(5, 300, n).tolist() for n in lengths])


def weight(layer: Any) -> np.ndarray:
    return layer.weight.detach().numpy()


def linear(layer: Any, row: np.ndarray) -> np.ndarray:
    return weight(layer) @ row + layer.bias.detach().numpy()


def norm(layer: Any, row: np.ndarray) -> np.ndarray:
    return (row - row.mean()) / np.sqrt(row.var() + layer.eps) * weight(layer) + layer.bias.detach().numpy()


def gelu(row: np.ndarray) -> np.ndarray:
    return row * 0.5 * (1 + erf(row / math.sqrt(2)))


def slow_decoder(module: RetroMAE, vector: np.ndarray, ids: list[int], seen: np.ndarray) -> list[np.ndarray]:
    """Section 3.3 for one text: H1 asks (eq. 5), H2 answers, each row of the mask is its own (eq. 6, 7)."""
    table = weight(module.embedder.backbone.get_input_embeddings())
    place = weight(module.positions)
    h1 = [vector + place[i] for i in range(len(ids))]
    h2 = [vector, *(table[token] + place[i] for i, token in enumerate(ids))]
    size = len(vector) // module.heads
    rebuilt = []
    for i, asking in enumerate(h1):
        heads = []
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            query = linear(module.ask, asking)[part]
            scores = {
                j: query @ linear(module.look, h2[j])[part] / math.sqrt(size)
                for j in range(len(h2))
                if seen[i, j]
            }
            total = sum(math.exp(s) for s in scores.values())
            heads.append(
                sum(math.exp(s) / total * linear(module.take, h2[j])[part] for j, s in scores.items())
            )
        attended = norm(module.attention_norm, linear(module.mix, np.concatenate(heads)) + asking)
        inner = gelu(linear(module.feed_forward[0], attended))
        rebuilt.append(norm(module.output_norm, linear(module.feed_forward[2], inner) + attended))
    return rebuilt


def test_decoding_equals_the_papers_equations(module: RetroMAE, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = batch(module)
    seen = module._sample(inputs["attention_mask"])
    monkeypatch.setattr(module, "_sample", lambda mask: seen)
    vectors = torch.randn(2, 128, dtype=torch.float64)
    table = module.embedder.backbone.get_input_embeddings().weight
    fast = module._decode(vectors, table[inputs["input_ids"]], inputs["attention_mask"]).detach().numpy()
    for row, length in enumerate((9, 5)):
        ids = inputs["input_ids"][row].tolist()
        expected = slow_decoder(module, vectors[row].numpy(), ids, seen[row].numpy())
        np.testing.assert_allclose(fast[row, :length], expected[:length], atol=1e-10)


def test_losses_are_the_mean_cross_entropy_of_their_targets(
    module: RetroMAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both heads: dense, GELU, norm, one output matrix; targets only where asked. And the bag of words."""
    inputs = batch(module)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    seen = module._sample(mask)
    monkeypatch.setattr(module, "_sample", lambda mask: seen)
    masked = ids.clone()
    masked[0, [2, 4]] = masked[1, 3] = 4
    targets = mask.bool() & (torch.arange(ids.shape[1]) % 2 == 0)
    encoder, decoder, words = module(ids, mask, masked, targets)

    states = (
        module.embedder.backbone(input_ids=masked, attention_mask=mask).last_hidden_state.detach().numpy()
    )
    table = module.table_VD.detach().numpy()
    offset = module.bias_V.detach().numpy()

    def surprise(head: Any, state: np.ndarray, target: int) -> float:
        logits = table @ norm(head.norm, gelu(linear(head.dense, state))) + offset
        return float(np.log(np.exp(logits).sum()) - logits[target])

    expected = [
        surprise(module.encoder_head, states[row, i], int(ids[row, i])) for row, i in ((0, 2), (0, 4), (1, 3))
    ]
    assert encoder.item() == pytest.approx(np.mean(expected), rel=1e-6)
    losses: list[float] = []
    told: list[float] = []
    for row, length in enumerate((9, 5)):
        vector = states[row, :length].mean(0)
        vector *= math.sqrt(len(vector)) / np.linalg.norm(vector)
        logits = table @ vector + offset
        told += [np.log(np.exp(logits).sum()) - logits[int(ids[row, i])] for i in range(length)]
        rebuilt = slow_decoder(module, vector, ids[row].tolist(), seen[row].numpy())
        losses += [surprise(module.decoder_head, rebuilt[i], int(ids[row, i])) for i in range(0, length, 2)]
    assert decoder.item() == pytest.approx(np.mean(losses), rel=1e-6)  # cross-entropy is in fp32
    assert words.item() == pytest.approx(np.mean(told), rel=1e-6)


def test_a_position_sees_the_vector_and_never_itself_nor_padding(module: RetroMAE) -> None:
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    for _ in range(20):
        seen = module._sample(mask)
        assert seen[:, :, 0].all()
        assert not seen[:, :, 1:].diagonal(dim1=1, dim2=2).any()
        assert not seen[1, :, 6:].any()


def test_half_of_the_other_tokens_are_hidden(module: RetroMAE) -> None:
    seen = module._sample(torch.ones(8, 64, dtype=torch.int64))[:, :, 1:]
    assert seen.double().mean().item() == pytest.approx(0.5 * 63 / 64, abs=0.02)
    assert not torch.equal(seen[:, 0], seen[:, 1])  # each position has a sample of its own


def test_what_a_token_is_does_not_reach_its_own_prediction(module: RetroMAE) -> None:
    inputs = batch(module)
    table = module.embedder.backbone.get_input_embeddings().weight
    vectors = torch.randn(2, 128, dtype=torch.float64)
    changed = inputs["input_ids"].clone()
    changed[0, 3] += 1
    outputs = []
    for ids in (inputs["input_ids"], changed):
        torch.manual_seed(3)
        outputs.append(module._decode(vectors, table[ids], inputs["attention_mask"]))
    torch.testing.assert_close(outputs[0][0, 3], outputs[1][0, 3])
    assert not torch.equal(outputs[0][0], outputs[1][0])


def test_padding_changes_no_sentence_vector_and_no_prediction(
    module: RetroMAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = batch(module, (6,))
    wider = {key: torch.nn.functional.pad(value, (0, 4)) for key, value in inputs.items()}
    torch.testing.assert_close(module.embedder(**inputs), module.embedder(**wider))
    seen = module._sample(wider["attention_mask"])
    results = []
    for each in (inputs, wider):
        length = each["input_ids"].shape[1]
        monkeypatch.setattr(module, "_sample", lambda mask, n=length: seen[:, :n, : n + 1])
        targets = each["attention_mask"].bool()
        masked = each["input_ids"].clone()
        masked[0, 2] = 4
        results.append(module(each["input_ids"], each["attention_mask"], masked, targets))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("width", [40, 64, 72, 200])
def test_any_width_divides_into_heads(make_embedder, width: int) -> None:
    module = RetroMAE(make_embedder("bert", hidden_size=width), length=LENGTH)
    assert width % module.heads == 0
    inputs = batch(module)
    losses = module(
        inputs["input_ids"], inputs["attention_mask"], inputs["input_ids"], inputs["attention_mask"] > 0
    )
    assert torch.isfinite(torch.stack(losses)).all()


def test_only_maskable_tokens_are_masked_in_their_share() -> None:
    ids = torch.randint(5, 100, (50, 40))
    maskable = torch.rand(50, 40) < 0.7
    masked = mask_tokens(ids, maskable, 0.3, 4)
    hit = masked != ids
    assert (masked[hit] == 4).all()
    assert not (hit & ~maskable).any()
    assert hit[maskable].double().mean().item() == pytest.approx(0.3, abs=0.05)


def config(**values: Any) -> PretrainConfig:
    base = {"batch": 4, "length": 16, "batch_tokens": 64, "checkpoint_every": 50, "log_every": 10}
    return PretrainConfig(**(base | values))


def test_loss_falls_and_the_decoder_is_not_saved(make_embedder, texts: list[str], tmp_path) -> None:
    embedder: Embedder = make_embedder("modernbert")
    told: list[tuple[int, dict[str, float]]] = []
    pretrain(
        embedder,
        texts,
        config(steps=60, learning_rate=5e-3, schedule="constant"),
        seed=0,
        bf16=False,
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda values, step: told.append((step, values)),
    )
    assert [step for step, _ in told] == [10, 20, 30, 40, 50, 60]
    for name in ("encoder_loss", "decoder_loss"):
        assert told[-1][1][name] < 0.8 * told[0][1][name]
    save_embedder(embedder, tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {name.removeprefix("model.") for name in saved} == set(embedder.backbone.state_dict())


def test_special_tokens_are_neither_masked_nor_predicted(make_embedder, texts: list[str]) -> None:
    module = RetroMAE(make_embedder("bert"), length=16)
    asked: list[tuple[torch.Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, inputs: asked.append(inputs))
    ids = module.embedder.tokenize(texts, max_length=16)
    step = PretrainStep(config(encoder_mask=0.9), mask_id=module.embedder.tokenizer.mask_token_id, bf16=False)
    loss, metrics = step(module, {"ids": ids})
    assert metrics["tokens"] == sum(map(len, ids))
    assert loss.item() == pytest.approx(metrics["encoder_loss"] + metrics["decoder_loss"])
    special = torch.tensor(module.embedder.tokenizer.all_special_ids)
    for input_ids, mask, masked_ids, targets in asked:
        ordinary = mask.bool() & ~torch.isin(input_ids, special)
        assert not (targets & ~ordinary).any()
        assert not ((masked_ids != input_ids) & ~ordinary).any()


def test_chunks_of_a_batch_weigh_by_their_tokens(make_embedder, texts: list[str]) -> None:
    """Deterministic parts only: the decoder sees all, predicts all; one chunk equals many."""
    gradients = []
    for batch_tokens in (64, 10_000):
        module = RetroMAE(make_embedder("bert"), length=16, decoder_mask=1.0)
        torch.manual_seed(0)
        for parameter in module.parameters():
            parameter.data.normal_(std=0.05)
        same = [texts[1][:20]] * 8  # rows alike, so that every chunk has the same mean
        ids = module.embedder.tokenize(same, max_length=16)
        step = PretrainStep(config(encoder_mask=1e-9, batch_tokens=batch_tokens), mask_id=4, bf16=False)
        step(module, {"ids": ids})
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_an_empty_passage_does_no_harm(make_embedder) -> None:
    module = RetroMAE(make_embedder("bert"), length=16)
    ids = module.embedder.tokenize(["", ""], max_length=16)
    loss, _ = PretrainStep(config(), mask_id=4, bf16=False)(module, {"ids": ids})
    assert loss.item() == 0.0


def test_too_few_passages_are_refused(make_embedder, tmp_path) -> None:
    with pytest.raises(InputError, match="there are 2 passages, one batch needs 4"):
        pretrain(
            make_embedder(),
            ["a", "b"],
            config(),
            seed=0,
            bf16=False,
            checkpoints=tmp_path,
            on_metrics=lambda values, step: None,
        )


def test_a_tokenizer_without_mask_token_is_refused() -> None:
    with pytest.raises(InputError, match="no mask token"):
        PretrainStep(config(), mask_id=None, bf16=False)


def test_the_output_bias_starts_at_the_frequency_of_tokens(make_embedder) -> None:
    embedder = make_embedder("bert")
    rows = embedder.backbone.get_input_embeddings().weight.shape[0]
    counts = torch.randint(0, 50, (rows,))
    bias = RetroMAE(embedder, length=LENGTH, frequencies_V=counts).bias_V
    torch.testing.assert_close(bias.exp().sum().item(), 1.0)
    torch.testing.assert_close(bias[3] - bias[7], torch.log((counts[3] + 1) / (counts[7] + 1)))

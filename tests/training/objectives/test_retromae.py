"""What RetroMAE must hold to; against the paper's equations: tests/peers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedline.config.training import PretrainConfig
from embedline.errors import InputError
from embedline.models.embedder import Embedder
from embedline.models.folder import save_embedder
from embedline.training.batching.passages import PassageBatch
from embedline.training.objectives.retromae import RetroMAE
from embedline.training.pretraining import PretrainStep, objective_module, pretrain

LENGTH = 12


def batch_of(ids: list[list[int]]) -> PassageBatch:
    return PassageBatch("corpus", list(range(len(ids))), ids)


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
        monkeypatch.setattr(module, "_sample", lambda mask, words, n=length: seen[:, :n, : n + 1])
        targets = each["attention_mask"].bool()
        masked = each["input_ids"].clone()
        masked[0, 2] = 4
        results.append(module(**each, masked_ids=masked, targets_BT=targets, decoder_targets_BT=targets))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("width", [40, 64, 72, 200])
def test_any_width_divides_into_heads(make_embedder, width: int) -> None:
    module = RetroMAE(make_embedder("bert", hidden_size=width), length=LENGTH)
    assert width % module.heads == 0
    inputs = batch(module)
    everywhere = inputs["attention_mask"] > 0
    losses = module(
        **inputs, masked_ids=inputs["input_ids"], targets_BT=everywhere, decoder_targets_BT=everywhere
    )
    assert torch.isfinite(torch.stack(losses[:2])).all()


def test_a_sample_lacks_whole_words_and_the_position_itself(module: RetroMAE) -> None:
    """Words of one, two and three tokens: of each, a position sees all or none, itself apart."""
    first = torch.tensor([[0, 1, 1, 3, 3, 3, 6, 7]] * 2)
    shares = []
    for _ in range(50):
        seen = module._sample(torch.ones(2, 8, dtype=torch.int64), first)
        assert seen[:, :, 0].all()
        assert not seen[:, :, 1:].diagonal(dim1=1, dim2=2).any()
        for position in range(8):
            for word in ([1, 2], [3, 4, 5]):
                others = [token + 1 for token in word if token != position]
                assert set(seen[:, position, others].double().mean(-1).flatten().tolist()) <= {0.0, 1.0}
        shares.append(seen[:, :, 1:].double().mean().item())
    assert sum(shares) / 50 == pytest.approx(0.5 * 7 / 8, abs=0.04)


def config(**values: Any) -> PretrainConfig:
    base = {"batch": 4, "length": 16, "batch_tokens": 64, "checkpoint_every": 50, "log_every": 10}
    return PretrainConfig(**(base | values))


def test_loss_falls_and_the_decoder_is_not_saved(make_embedder, texts: list[str], tmp_path) -> None:
    embedder: Embedder = make_embedder("modernbert")
    logged: list[tuple[int, dict[str, float]]] = []
    pretrain(
        embedder,
        texts,
        config(steps=60, learning_rate=5e-3, schedule="constant"),
        seed=0,
        bf16=False,
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda values, step: logged.append((step, values)),
    )
    assert [step for step, _ in logged] == [10, 20, 30, 40, 50, 60]
    for name in ("encoder_loss", "decoder_loss"):
        assert logged[-1][1][name] < 0.8 * logged[0][1][name]
    save_embedder(embedder, tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {name.removeprefix("model.") for name in saved} == set(embedder.backbone.state_dict())


def test_special_tokens_are_neither_masked_nor_predicted(make_embedder, texts: list[str]) -> None:
    module = RetroMAE(make_embedder("bert"), length=16)
    seen: list[tuple[torch.Tensor, ...]] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    ids = module.embedder.tokenize(texts, max_length=16)
    step = PretrainStep(config(encoder_mask=0.9), mask_id=module.embedder.tokenizer.mask_token_id, bf16=False)
    loss, metrics = step(module, batch_of(ids))
    assert metrics["tokens"] == sum(map(len, ids))
    assert loss.item() == pytest.approx(metrics["encoder_loss"] + metrics["decoder_loss"])
    special = torch.tensor(module.embedder.tokenizer.all_special_ids)
    for input_ids, mask, masked_ids, targets, decoder_targets in seen:
        ordinary = mask.bool() & ~torch.isin(input_ids, special)
        assert not ((targets | decoder_targets) & ~ordinary).any()
        assert torch.equal(masked_ids != input_ids, targets)


def test_words_are_predicted_only_with_a_weight(
    make_embedder, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their scores are B × T × V from tokens: nothing to compute in vain."""
    called: list[str] = []
    for name in ("_words_of_vector", "_words_of_tokens"):
        honest = getattr(RetroMAE, name)
        monkeypatch.setattr(
            RetroMAE, name, lambda *given, of=name, do=honest: called.append(of) or do(*given)
        )
    embedder = make_embedder("bert")
    batch = batch_of(embedder.tokenize(texts, max_length=16))
    for weight, source, found in (
        (0.0, "tokens", None),
        (0.5, "vector", "vector"),
        (0.5, "tokens", "tokens"),
    ):
        values = config(bag_of_words=weight, bag_of_words_from=source)
        called.clear()
        _, metrics = PretrainStep(values, mask_id=4, bf16=False)(
            objective_module(embedder, texts, values), batch
        )
        assert ("words_loss" in metrics) == bool(found)
        assert set(called) == ({f"_words_of_{found}"} if found else set())


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
        step(module, batch_of(ids))
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_an_empty_passage_does_no_harm(make_embedder) -> None:
    module = RetroMAE(make_embedder("bert"), length=16)
    ids = module.embedder.tokenize(["", ""], max_length=16)
    loss, _ = PretrainStep(config(), mask_id=4, bf16=False)(module, batch_of(ids))
    assert loss.item() == 0.0


def test_an_empty_passage_has_no_words(make_embedder) -> None:
    module = RetroMAE(make_embedder("bert"), length=16, words_from="tokens")
    inputs = module.embedder.pad(module.embedder.tokenize(["", "VPN"], max_length=16))
    everywhere = inputs["attention_mask"] > 0
    words = module(
        **inputs, masked_ids=inputs["input_ids"], targets_BT=everywhere, decoder_targets_BT=everywhere
    ).words
    alone = module.embedder.pad(module.embedder.tokenize(["VPN"], max_length=16))
    everywhere = alone["attention_mask"] > 0
    expected = module(
        **alone, masked_ids=alone["input_ids"], targets_BT=everywhere, decoder_targets_BT=everywhere
    ).words
    torch.testing.assert_close(words, expected / 2)


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
    bias = RetroMAE(embedder, length=LENGTH, frequencies_V=counts).output.bias_V
    torch.testing.assert_close(bias.exp().sum().item(), 1.0)
    torch.testing.assert_close(bias[3] - bias[7], torch.log((counts[3] + 1) / (counts[7] + 1)))

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from embedline.models.embedder import Embedder, EmbedderSpec
from embedline.models.head_start import needs_start, start_heads
from embedline.models.heads import MultiVectorHead


@pytest.fixture
def lexical(make_embedder) -> Embedder:
    model = make_embedder("bert")
    return model.with_spec(EmbedderSpec(heads=("dense", "lexical"))).train()


def test_a_new_lexical_head_is_fitted_to_document_frequencies(lexical: Embedder, texts: list[str]) -> None:
    """Against scikit-learn's ridge regression on every token of the texts."""
    ids = lexical.tokenize([f"search_query: {text}" for text in texts], max_length=40)
    start_heads(lexical, ids)
    frequency = Counter(token for row in ids for token in set(row))
    lexical.eval()
    states, idf = [], []
    for row in ids:
        with torch.no_grad():
            row_states, _ = lexical.states(**lexical.pad([row]))
        for token, state in zip(row, row_states[0], strict=True):
            if token not in lexical.tokenizer.all_special_ids:
                states.append(state.double().numpy())
                idf.append(math.log((len(ids) + 1) / frequency[token]))
    x, y = np.stack(states), 0.1 * np.array(idf) / np.mean(idf)
    centred = x - x.mean(0)
    fitted = Ridge(alpha=(centred**2).sum(0).mean()).fit(x, y)
    weigh = lexical.heads["lexical"].weigh
    np.testing.assert_allclose(weigh.weight[0].detach(), fitted.coef_, atol=1e-5)
    assert float(weigh.bias.detach()) == pytest.approx(fitted.intercept_, abs=1e-5)


def test_the_start_draws_nothing_and_leaves_training_on(lexical: Embedder, texts: list[str]) -> None:
    assert needs_start(lexical)
    state = torch.get_rng_state()
    start_heads(lexical, lexical.tokenize(texts, max_length=40))
    assert torch.equal(torch.get_rng_state(), state)
    assert lexical.training
    assert not needs_start(lexical)


def test_texts_of_special_tokens_alone_leave_the_head_as_it_is(lexical: Embedder) -> None:
    start_heads(lexical, lexical.tokenize(["", ""], max_length=8))
    assert needs_start(lexical)
    assert float(lexical.heads["lexical"].weigh.bias) == pytest.approx(0.1)


def test_a_model_without_a_lexical_head_needs_no_start(make_embedder) -> None:
    assert not needs_start(make_embedder("bert"))


def test_a_narrow_multi_vector_head_starts_at_the_principal_directions(make_embedder, texts) -> None:
    """Against scikit-learn's PCA; a head that has been trained stays."""
    spec = EmbedderSpec(heads=("dense", "multi_vector"), multi_vector_width=8)
    model = make_embedder("bert").with_spec(spec)
    ids = model.tokenize(texts, max_length=40)
    start_heads(model, ids)
    with torch.no_grad():
        states = [model.states(**model.pad([row]))[0][0, 1:-1].numpy() for row in ids]
    found = model.heads["multi_vector"].project.weight.detach().double().numpy()
    expected = PCA(8).fit(np.concatenate(states).astype(np.float64)).components_
    np.testing.assert_allclose(np.abs(found @ expected.T), np.eye(8), atol=1e-4)
    with torch.no_grad():
        model.heads["multi_vector"].project.bias.fill_(0.1)
        model.heads["multi_vector"].project.weight.fill_(0.5)
    start_heads(model, ids)
    assert (model.heads["multi_vector"].project.weight == 0.5).all()
    assert not needs_start(model)


@pytest.mark.parametrize(("out", "tolerance"), [(64, 1e-5), (48, 0.45)])
def test_an_untrained_multi_vector_head_keeps_the_cosines_of_states(out: int, tolerance: float) -> None:
    torch.manual_seed(0)
    head = MultiVectorHead(64, out, [0])
    states = torch.randn(1, 32, 64)
    ids = torch.ones(1, 32, dtype=torch.int64)
    tokens = head(states, ids, torch.ones_like(ids))[0]
    unit = torch.nn.functional.normalize(states[0], dim=-1)
    assert (tokens @ tokens.T - unit @ unit.T).abs().max() < tolerance
    assert not head.project.bias.any()

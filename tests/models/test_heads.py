from __future__ import annotations

import pytest
import torch

from embedline.models.heads import LexicalHead, MultiVectorHead

IDS = torch.tensor([[2, 10, 11, 10, 3, 0], [2, 12, 3, 0, 0, 0]])
MASK = (IDS != 0).long()
SPECIAL = [0, 1, 2, 3, 4]


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 6, 8)


def test_a_tokens_weight_is_the_relu_of_its_projection(states: torch.Tensor) -> None:
    head = LexicalHead(8, SPECIAL)
    torch.nn.init.normal_(head.weigh.weight)
    weights = head(states, IDS, MASK).detach()
    assert (weights == 0).any()
    for row in range(2):
        for column in range(6):
            linear = head.weigh.weight[0] @ states[row, column] + head.weigh.bias[0]
            counts = int(IDS[row, column]) not in SPECIAL
            expected = max(0.0, linear.item()) if counts else 0.0
            assert float(weights[row, column]) == pytest.approx(expected, abs=1e-6)


def test_a_new_head_weighs_every_ordinary_token_nearly_alike() -> None:
    """Below 0 a ReLU has no gradient: a head that starts there, or falls there soon, is not trained."""
    torch.manual_seed(0)
    head = LexicalHead(256, SPECIAL)
    ids = torch.randint(5, 99, (64, 32))
    weights = head(
        torch.nn.functional.layer_norm(torch.randn(64, 32, 256), (256,)), ids, torch.ones_like(ids)
    )
    assert (weights > 0).float().mean() > 0.99
    assert weights.mean().item() == pytest.approx(0.1, abs=0.02)


def test_special_tokens_and_padding_have_no_weight(states: torch.Tensor) -> None:
    head = LexicalHead(8, SPECIAL)
    torch.nn.init.constant_(head.weigh.bias, 100.0)
    weights = head(states, IDS, MASK)
    assert (weights > 0).tolist() == [[False, True, True, True, False, False], [False, True] + [False] * 4]


def test_token_vectors_have_length_one_but_for_the_first_and_padding(states: torch.Tensor) -> None:
    head = MultiVectorHead(8, 4, SPECIAL)
    tokens = head(states, IDS, MASK)
    assert tokens.shape == (2, 6, 4)
    expected = MASK.float()
    expected[:, 0] = 0
    torch.testing.assert_close(tokens.norm(dim=-1), expected)
    linear = states[0, 2] @ head.project.weight.T + head.project.bias
    torch.testing.assert_close(tokens[0, 2], linear / linear.norm())


def test_a_text_that_begins_with_a_word_keeps_its_vector(states: torch.Tensor) -> None:
    """A decoder's tokenizer may add no token before a text."""
    ids = IDS.clone()
    ids[:, 0] = 12
    tokens = MultiVectorHead(8, 4, SPECIAL)(states, ids, MASK)
    torch.testing.assert_close(tokens.norm(dim=-1), MASK.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_fp32_whatever_the_states_are(states: torch.Tensor, dtype: torch.dtype) -> None:
    assert LexicalHead(8, SPECIAL)(states.to(dtype), IDS, MASK).dtype == torch.float32
    assert MultiVectorHead(8, 4, SPECIAL)(states.to(dtype), IDS, MASK).dtype == torch.float32

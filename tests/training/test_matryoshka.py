from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn

from embedline.errors import InputError
from embedline.training.contrastive import weighted_dims
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.matryoshka import matryoshka

WIDTH, PAIRS = 16, 5


class Given(nn.Module):
    """A sentence-transformers model that returns the vectors it is handed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"], "token_embeddings": features["vectors"]}

    def get_sentence_embedding_dimension(self) -> int:
        return WIDTH

    def get_embedding_dimension(self) -> int:
        return WIDTH


@pytest.mark.parametrize("weights", [[], [1.0, 0.5, 0.25]])
def test_equals_sentence_transformers_matryoshka_loss(weights: list[float]) -> None:
    dims = [16, 8, 4]
    vectors = torch.randn(2 * PAIRS, WIDTH, requires_grad=True)

    def at_width(part: Tensor) -> Tensor:
        return info_nce(
            part[:PAIRS],
            part[PAIRS:],
            owner_M=torch.arange(PAIRS),
            same_NM=torch.zeros(PAIRS, PAIRS, dtype=torch.bool),
            temperature=0.05,
        )

    ours = matryoshka(at_width, vectors, dims, weights)
    model = SentenceTransformer(modules=[Given()], device="cpu")
    peer = MatryoshkaLoss(
        model, MultipleNegativesRankingLoss(model, scale=20.0), dims, matryoshka_weights=weights or None
    )
    theirs = peer([{"vectors": vectors[:PAIRS]}, {"vectors": vectors[PAIRS:]}], torch.zeros(0))
    torch.testing.assert_close(ours, theirs)
    [mine] = torch.autograd.grad(ours, vectors)
    [other] = torch.autograd.grad(theirs, vectors)
    torch.testing.assert_close(mine, other)


def test_weights_stay_with_their_dims() -> None:
    assert weighted_dims(32, (8, 16), [0.5, 0.7]) == {32: 1.0, 8: 0.5, 16: 0.7}
    assert weighted_dims(32, (8, 32), [0.5, 0.7]) == {32: 0.7, 8: 0.5}
    assert weighted_dims(32, (16, 8), []) == {32: 1.0, 16: 1.0, 8: 1.0}
    assert weighted_dims(32, (), []) == {32: 1.0}


def test_a_dim_wider_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.dims: 64 is larger than the model's width 32"):
        weighted_dims(32, (64, 16), [])
